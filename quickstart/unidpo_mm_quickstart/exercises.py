"""Generate text and math pairs whose better response is known, from rules and a seed.

**Math**: sums of three numbers. The prompt asks for the number only or for a sentence; a good
response has the correct number in the requested form. **Text**: the prompt asks for a word, written
in one of six styles; a good response follows it exactly. Every form and style is chosen as often as
it is rejected, so neither length nor form alone predicts the better response. No sum or word is in
two splits.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Task", "balance", "math_tasks", "text_tasks"]

SPLITS = ("train", "validation", "heldout")


@dataclass(frozen=True, kw_only=True)
class Task:
    """A prompt, a better and a worse response, and their scores on a scale of 0 to 10."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float
    fault: str
    """The error in the worse response."""


FAULTS = ("wrong number", "wrong form", "both")
NUMBER, SENTENCE = "Answer with the number only.", "Answer in a sentence."

STYLES: dict[str, Callable[[str], str]] = {
    "in capital letters": str.upper,
    "twice": lambda word: f"{word} {word}",
    "three times": lambda word: f"{word} {word} {word}",
    "in quotes": lambda word: f'"{word}"',
    "with a capital first letter": str.capitalize,
    "spelled letter by letter": lambda word: "-".join(word),
}
"""Style, as prompts name it, and the function that writes a word in it."""

WORDS = tuple(
    """
    apple bread chair table house river stone cloud grass green water light paper music dance smile
    sleep dream night morning winter summer spring autumn garden window bottle candle pocket button
    basket ladder hammer needle thread carpet mirror pillow blanket kitchen engine rocket planet
    island forest desert valley meadow harbor bridge tunnel castle tower school lesson pencil letter
    number circle square triangle corner doctor farmer baker painter singer writer dancer sailor
    pilot driver lemon orange banana cherry tomato potato carrot onion pepper butter cheese coffee
    sugar honey yellow purple silver golden simple gentle quiet clever honest brave happy sunny
    windy rainy cloudy frozen broken hidden wooden woolen velvet cotton leather marble copper iron
    dollar minute second hour week
    """.split()
)
"""The words of text tasks; each belongs to one split."""


def math_tasks(split: str, count: int, *, seed: int, pairs: int = 1) -> list[Task]:
    """Return sums whose worse response has a wrong number, a wrong form, or both.

    Args:
        split: ``train``, ``validation`` or ``heldout``; no sum is in two of them.
        count: Number of prompts.
        seed: Seed of the choice.
        pairs: Number of pairs per prompt, at most 3, with different errors.
    """
    generator = random.Random(f"math-{split}-{seed}")
    prompts: set[str] = set()
    tasks: list[Task] = []
    while len(prompts) < count:
        numbers = [generator.randint(1, 20) for _ in range(3)]
        # Sorted, because the order of the numbers does not make it another sum
        if SPLITS[_bucket(sum(n * 23**k for k, n in enumerate(sorted(numbers))))] != split:
            continue
        sign = generator.choice((1, -1))
        result = numbers[0] + numbers[1] + sign * numbers[2]
        form = (NUMBER, SENTENCE)[len(prompts) % 2]
        question = f"What is {numbers[0]} + {numbers[1]} {'+' if sign > 0 else '-'} {numbers[2]}?"
        prompt = f"{question} {form}"
        if prompt in prompts:
            continue
        for number in range(pairs):
            fault = FAULTS[(len(prompts) // 2 + number) % len(FAULTS)]
            name = f"math-{split}-{len(tasks):04d}"
            tasks.append(_sum_task(name, prompt, result, fault, generator))
        prompts.add(prompt)
    return tasks


def text_tasks(split: str, count: int, *, seed: int, pairs: int = 1) -> list[Task]:
    """Return words to write in a style; the worse response uses another style.

    Args:
        split: ``train``, ``validation`` or ``heldout``; no word is in two of them.
        count: Number of prompts, at most six per word of the split.
        seed: Seed of the choice.
        pairs: Number of pairs per prompt, at most 5, with different styles.

    Raises:
        ValueError: If the split has fewer prompts.
    """
    generator = random.Random(f"text-{split}-{seed}")
    words = [word for number, word in enumerate(WORDS) if SPLITS[_bucket(number)] == split]
    prompts = [(word, style) for word in words for style in STYLES]
    if count > len(prompts):
        raise ValueError(f"the split {split} has {len(prompts)} text prompts, not {count}")
    choices = [
        (word, style, other)
        for word, style in generator.sample(prompts, count)
        for other in generator.sample([other for other in STYLES if other != style], pairs)
    ]
    return [
        Task(
            id=f"text-{split}-{number:04d}",
            prompt=f"Write the word {word} {style}.",
            chosen=STYLES[style](word),
            rejected=STYLES[other](word),
            score_chosen=9.0,
            score_rejected=4.0 if {"twice", "three times"} == {style, other} else 1.0,
            fault=f"written {other}",
        )
        for number, (word, style, other) in enumerate(choices)
    ]


def balance(tasks: Sequence[Task]) -> dict[str, int]:
    """Count the tasks whose better response is the shorter one, the longer one or equally long."""
    counts = {"shorter": 0, "longer": 0, "equal": 0}
    for task in tasks:
        difference = len(task.chosen) - len(task.rejected)
        counts["equal" if not difference else "longer" if difference > 0 else "shorter"] += 1
    return counts


def _sum_task(name: str, prompt: str, result: int, fault: str, generator: random.Random) -> Task:
    wrong = result + generator.choice((-10, -3, -2, -1, 1, 2, 3, 10))
    requested, other = (str, _sentence) if prompt.endswith(NUMBER) else (_sentence, str)
    rejected, score = {
        "wrong number": (requested(wrong), 2.0),
        "wrong form": (other(result), 5.0),
        "both": (other(wrong), 0.0),
    }[fault]
    return Task(
        id=name,
        prompt=prompt,
        chosen=requested(result),
        rejected=rejected,
        score_chosen=9.0,
        score_rejected=score,
        fault=fault,
    )


def _sentence(number: int) -> str:
    return f"The answer is {number}."


def _bucket(number: int) -> int:
    """Assign a number to train (0), validation (1) or held-out (2), in the ratio 5 : 2 : 3."""
    return (0, 2, 0, 1, 0, 2, 0, 1, 0, 2)[number * 7919 % 10]

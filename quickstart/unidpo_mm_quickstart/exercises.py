"""Text and math tasks whose better answer can be checked, made from rules and a seed.

What is taught is stated plainly. **Math**: sums of three numbers; the prompt asks for the number
alone or for a sentence, and a good answer has the right number in the form that was asked for.
**Text**: a word is to be written in one of six ways; a good answer does what was asked and nothing
else. In both every form is as often the better answer as the worse one, so neither length nor form
by itself tells them apart. Splits never share a sum or a word.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Task", "balance", "math_tasks", "text_tasks"]

SPLITS = ("train", "validation", "heldout")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One pair: a prompt, a better and a worse answer, and their scores on a scale of 0 to 10."""

    id: str
    prompt: str
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float
    fault: str
    """What is wrong with the worse answer."""


NUMBER, SENTENCE = "Answer with the number only.", "Answer in a sentence."

WAYS: dict[str, Callable[[str], str]] = {
    "in capital letters": str.upper,
    "twice": lambda word: f"{word} {word}",
    "three times": lambda word: f"{word} {word} {word}",
    "in quotes": lambda word: f'"{word}"',
    "with a capital first letter": str.capitalize,
    "spelled letter by letter": lambda word: "-".join(word),
}
"""What a prompt can ask to be done with a word."""

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
"""Words to write; each belongs to one split."""


def math_tasks(split: str, count: int, *, seed: int) -> list[Task]:
    """Return sums with a right and a wrong answer, or a right one in the wrong form.

    Args:
        split: ``train``, ``validation`` or ``heldout``: no sum is in two of them.
        count: How many.
        seed: Chooses them.
    """
    generator = random.Random(f"math-{split}-{seed}")
    tasks: dict[str, Task] = {}
    while len(tasks) < count:
        numbers = [generator.randint(1, 20) for _ in range(3)]
        # the same three numbers in another order are the same sum
        if SPLITS[_bucket(sum(n * 23**k for k, n in enumerate(sorted(numbers))))] != split:
            continue
        sign = generator.choice((1, -1))
        result = numbers[0] + numbers[1] + sign * numbers[2]
        form = (NUMBER, SENTENCE)[len(tasks) % 2]
        question = f"What is {numbers[0]} + {numbers[1]} {'+' if sign > 0 else '-'} {numbers[2]}?"
        prompt = f"{question} {form}"
        if prompt not in tasks:
            fault = ("wrong number", "wrong form", "both")[len(tasks) // 2 % 3]
            tasks[prompt] = _sum_task(
                f"math-{split}-{len(tasks):04d}", prompt, result, fault, generator
            )
    return list(tasks.values())


def text_tasks(split: str, count: int, *, seed: int) -> list[Task]:
    """Return words to be written in some way, with a right answer and one of another way.

    Args:
        split: ``train``, ``validation`` or ``heldout``: no word is in two of them.
        count: How many; at most 6 x 5 for each word of the split.
        seed: Chooses them.
    """
    generator = random.Random(f"text-{split}-{seed}")
    words = [word for number, word in enumerate(WORDS) if SPLITS[_bucket(number)] == split]
    choices = [
        (word, asked, done) for word in words for asked in WAYS for done in WAYS if asked != done
    ]
    generator.shuffle(choices)
    if count > len(choices):
        raise ValueError(f"{split} has {len(choices)} text tasks, {count} were asked for")
    return [
        Task(
            id=f"text-{split}-{number:04d}",
            prompt=f"Write the word {word} {asked}.",
            chosen=WAYS[asked](word),
            rejected=WAYS[done](word),
            score_chosen=9.0,
            score_rejected=4.0 if {"twice", "three times"} == {asked, done} else 1.0,
            fault=f"written {done}",
        )
        for number, (word, asked, done) in enumerate(choices[:count])
    ]


def balance(tasks: Sequence[Task]) -> dict[str, int]:
    """Return how often the better answer is the shorter one, the longer one, or as long."""
    counts = {"shorter": 0, "longer": 0, "equal": 0}
    for task in tasks:
        difference = len(task.chosen) - len(task.rejected)
        counts["equal" if not difference else "longer" if difference > 0 else "shorter"] += 1
    return counts


def _sum_task(name: str, prompt: str, result: int, fault: str, generator: random.Random) -> Task:
    wrong = result + generator.choice((-10, -3, -2, -1, 1, 2, 3, 10))
    asked, other = (str, _sentence) if prompt.endswith(NUMBER) else (_sentence, str)
    rejected, score = {
        "wrong number": (asked(wrong), 2.0),
        "wrong form": (other(result), 5.0),
        "both": (other(wrong), 0.0),
    }[fault]
    return Task(
        id=name,
        prompt=prompt,
        chosen=asked(result),
        rejected=rejected,
        score_chosen=9.0,
        score_rejected=score,
        fault=fault,
    )


def _sentence(number: int) -> str:
    return f"The answer is {number}."


def _bucket(number: int) -> int:
    """Put a number into train (0), validation (1) or held-out (2), 5 to 2 to 3."""
    return (0, 2, 0, 1, 0, 2, 0, 1, 0, 2)[number * 7919 % 10]

"""Numbers in English words, read as the graders of the paper's math results read them.

They use a small library whose habits show in scores: words that name no number are passed over, so
that "five apples" is 5, and a text that holds nothing but the word "point" is 0.
"""

from collections.abc import Sequence

__all__ = ["in_digits"]

ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
SCALES = {"billion": 10**9, "million": 10**6, "thousand": 10**3}
VALUES = (
    {word: value for value, word in enumerate(ONES)}
    | {word: 10 * value for value, word in enumerate(TENS, start=2)}
    | {"hundred": 100}
    | SCALES
)
POINT = "point"
DIGITS = ONES[:10]


def in_digits(text: str) -> str:
    """Returns the number that a text names in words, in digits; the text where it names none."""
    lowered = text.replace("-", " ").lower()
    if lowered.isdecimal():
        return str(int(lowered))
    words = [word for word in lowered.split() if word in VALUES or word == POINT]
    once = (*SCALES, POINT)
    if not words or any(words.count(word) > 1 for word in once):
        return text
    decimals: list[str] = []
    if POINT in words:
        at = words.index(POINT)
        words, decimals = words[:at], words[at + 1 :]
    whole = _whole(words)
    if whole is None:
        return text
    if not decimals:
        return str(whole)
    if any(word not in DIGITS for word in decimals):
        return str(whole + 0)
    return str(whole + float(f"0.{''.join(str(VALUES[word]) for word in decimals)}"))


def _whole(words: Sequence[str]) -> int | None:
    """Returns the whole number, 0 for no word; None where it is put together wrongly."""
    if len(words) <= 1:
        return VALUES[words[0]] if words else 0
    places = [words.index(name) for name in SCALES if name in words]
    if places != sorted(places):
        return None
    total, start = 0, 0
    for place in places:
        factor = _below_thousand(words[start:place])
        if factor is None:
            return None
        total += factor * VALUES[words[place]]
        start = place + 1
    # a scale that ends the text is passed over, and what follows the one before is added once more
    follows = [place + 1 for place in places if place + 1 < len(words)]
    if places and not follows:
        return total
    last = _below_thousand(words[follows[-1] if follows else 0 :])
    return None if last is None else total + last


def _below_thousand(words: Sequence[str]) -> int | None:
    values = [VALUES[word] for word in words]
    if not values:
        return None
    match values:
        case [hundreds, hundred, tens, ones]:
            return hundreds * hundred + tens + ones
        case [hundreds, hundred, rest]:
            return hundreds * hundred + rest
        case [one, other]:
            return one * other if 100 in values else one + other
        case _:
            return values[0]

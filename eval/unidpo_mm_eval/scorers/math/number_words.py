"""Numbers in English words, read as the graders of the paper's math results read them.

They use a small library whose quirks affect scores: words that are not part of a number are
ignored, so "five apples" is 5, and a text whose only number word is "point" is 0.
"""

from collections.abc import Sequence

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


def words_to_digits(text: str) -> str:
    """Return the number that a text spells out, in digits; the text itself if there is none."""
    lowered = text.replace("-", " ").lower()
    if lowered.isdecimal():
        return str(int(lowered))
    words = [word for word in lowered.split() if word in VALUES or word == POINT]
    if not words or any(words.count(word) > 1 for word in (*SCALES, POINT)):
        return text
    decimals: list[str] = []
    if POINT in words:
        at = words.index(POINT)
        words, decimals = words[:at], words[at + 1 :]
    integer = _integer(words)
    if integer is None:
        return text
    if not decimals or any(word not in DIGITS for word in decimals):
        return str(integer)
    return str(integer + float(f"0.{''.join(str(VALUES[word]) for word in decimals)}"))


def _integer(words: Sequence[str]) -> int | None:
    """Return the integer that words spell, 0 for no words; `None` if they are out of order."""
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
    # quirk: a scale at the end is ignored, and the words after the previous one are added again
    follows = [place + 1 for place in places if place + 1 < len(words)]
    if places and not follows:
        return total
    last = _below_thousand(words[follows[-1] if follows else 0 :])
    return None if last is None else total + last


def _below_thousand(words: Sequence[str]) -> int | None:
    match [VALUES[word] for word in words]:
        case []:
            return None
        case [hundreds, hundred, tens, ones]:
            return hundreds * hundred + tens + ones
        case [hundreds, hundred, rest]:
            return hundreds * hundred + rest
        case [left, right]:
            return left * right if 100 in (left, right) else left + right
        case values:
            return values[0]

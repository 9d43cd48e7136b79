"""Comparison of short answers: ANLS, ChartQA's relaxed match, and the VQA accuracy."""

import re
from collections.abc import Sequence
from typing import Literal

# ---- ANLS: average normalized Levenshtein similarity ----

THRESHOLD = 0.5
"""Minimum similarity that counts, inclusive."""


def anls(prediction: str, answers: Sequence[str]) -> float:
    """Return the similarity to the nearest answer, from 0 to 1.

    The distance is that of both texts in lower case with single spaces. It is divided by the length
    of the longer original text in upper case, which may be longer than in lower case ('ß').
    """
    similarity = 1 - min(_distance(prediction, answer) for answer in answers)
    return similarity if similarity >= THRESHOLD else 0.0


def _distance(prediction: str, answer: str) -> float:
    longest = max(len(prediction.upper()), len(answer.upper()))
    if not longest:
        return 0.0
    left, right = (" ".join(text.lower().split()) for text in (prediction, answer))
    if abs(len(left) - len(right)) > THRESHOLD * longest:
        return 1.0  # at least as many characters differ, so the similarity cannot count
    return levenshtein(left, right) / longest


def levenshtein(left: str, right: str) -> int:
    """Return the minimum number of insertions, deletions and replacements of characters."""
    if len(left) < len(right):
        left, right = right, left
    previous = list(range(len(right) + 1))
    for row, a in enumerate(left, start=1):
        current = [row]
        for column, b in enumerate(right, start=1):
            replaced = previous[column - 1] + (a != b)
            current.append(min(previous[column] + 1, current[-1] + 1, replaced))
        previous = current
    return previous[-1]


# ---- ChartQA's relaxed match ----

TOLERANCE = 0.05
"""Relative to the target, inclusive."""


def relaxed_match(prediction: str, answers: Sequence[str], *, strip: bool = True) -> bool:
    """Return whether a prediction is within 5 % of a numeric answer, or equals a text answer.

    A percentage is a hundredth of the number, a target of zero is compared as text, and a number
    with any other word does not match.

    With `strip`, whitespace around the prediction is ignored; lmms-eval does not do that.
    """
    text = prediction.strip() if strip else prediction
    return any(_relaxed(text, answer) for answer in answers)


def _relaxed(prediction: str, target: str) -> bool:
    left, right = _number(prediction), _number(target)
    if left is not None and right:
        return abs(left - right) / abs(right) <= TOLERANCE
    return prediction.lower() == target.lower()


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


# ---- VQA accuracy ----

VqaRule = Literal["vlmevalkit", "lmms"]
MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""Removed or replaced in this order; ' : * % $ & # and non-ASCII characters stay."""
DIGIT_COMMA = re.compile(r"\d,\d")
LONE_PERIOD = re.compile(r"(?<!\d)\.(?!\d)")
UNFOLLOWED_PERIOD = re.compile(r"\.(?!\d)")
PERIODS = 32
"""Maximum number of removed periods: the toolkits pass a regex flag as the count."""
NUMBERS = "none zero one two three four five six seven eight nine ten".split()
DIGITS = {word: str(max(number - 1, 0)) for number, word in enumerate(NUMBERS)}
"""Number word -> digits; none counts as 0."""
ARTICLES = frozenset({"a", "an", "the"})

WITH_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how'll how's isn't it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock
oughtn't shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's
something'd something'll that's there'd there're there's they'd they'll they're they've 'twas
wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
""".split()
DOUBLE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've
something'd've there'd've they'd've we'd've who'd've wouldn't've you'd've
""".split()
ODD = {
    "somebody'd": "somebodyd",
    "'ow'sat": "'ow's'at",
    "'ows'at": "'ow's'at",
    "ow's'at": "'ow's'at",
    "yall'll": "y'all'll",
    "y'allll": "y'all'll",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _contractions() -> dict[str, str]:
    """Return contractions that lack one apostrophe, with their correct spelling."""
    contractions = {word.replace("'", ""): word for word in WITH_APOSTROPHE}
    for word in DOUBLE:
        first, second, third = word.split("'")
        contractions[f"{first}{second}'{third}"] = word
        contractions[f"{first}'{second}{third}"] = word
    return contractions | ODD


CONTRACTIONS = _contractions()


def remove_punctuation(text: str, *, keep_after_digit: bool = True) -> str:
    """Return a text without the punctuation that the VQA metrics ignore.

    A mark with a space next to it anywhere in the text is deleted. If a comma between two digits
    occurs anywhere, every mark is deleted. All other marks become spaces.

    `keep_after_digit` keeps a period after a digit, as VLMEvalKit does; lmms-eval deletes every
    period that is not followed by a digit.
    """
    delete_all = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in MARKS:
        delete = delete_all or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if delete else " ")
    period = LONE_PERIOD if keep_after_digit else UNFOLLOWED_PERIOD
    return period.sub("", result, count=PERIODS)


def normalize_vqa(text: str, *, rule: VqaRule = "vlmevalkit") -> str:
    """Return an answer as the VQA metric compares it: lower case, digits, no articles.

    lmms-eval first lower-cases, removes commas and question marks, and splits off 's.
    """
    if rule == "lmms":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = remove_punctuation(text, keep_after_digit=rule == "vlmevalkit")
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str], *, rule: VqaRule = "vlmevalkit") -> float:
    """Return the VQA accuracy of a prediction, from 0 to 1, given usually ten answers.

    It is the mean over the answers of min(1, matches among the others / 3), which is less than
    min(1, matches / 3) over all of them.
    """
    text = normalize_vqa(prediction, rule=rule)
    matches = [normalize_vqa(answer, rule=rule) == text for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)

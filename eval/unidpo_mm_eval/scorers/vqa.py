"""Short answers compared as the VQA evaluations do: both sides normalised, ten answers each."""

from collections.abc import Sequence
from typing import Literal

from .punctuation import without_punctuation

__all__ = ["VqaRule", "normalised", "vqa_accuracy"]

VqaRule = Literal["vlmevalkit", "lmms"]

NUMBERS = "none zero one two three four five six seven eight nine ten".split()
DIGITS = {word: str(max(number - 1, 0)) for number, word in enumerate(NUMBERS)}
"""The digits of number words; none counts as 0."""
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
    """Returns contractions of which one apostrophe is missing, with the whole spelling."""
    found = {word.replace("'", ""): word for word in WITH_APOSTROPHE}
    for word in DOUBLE:
        first, second, third = word.split("'")
        found[f"{first}{second}'{third}"] = found[f"{first}'{second}{third}"] = word
    return found | ODD


CONTRACTIONS = _contractions()


def normalised(text: str, *, rule: VqaRule = "vlmevalkit") -> str:
    """Returns an answer as the metric compares it: no articles, digits for numbers, lower case.

    Args:
        text: A prediction or one of the answers.
        rule: lmms-eval first lower-cases, removes commas and question marks, and splits 's off.
    """
    if rule == "lmms":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    text = text.replace("\n", " ").replace("\t", " ").strip()
    text = without_punctuation(text, keep_after_digit=rule == "vlmevalkit")
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str], *, rule: VqaRule = "vlmevalkit") -> float:
    """Returns the VQA accuracy of a prediction, from 0 to 1.

    The mean over the answers of min(1, matches among the others / 3), which is less than
    min(1, matches / 3) over all of them.

    Args:
        prediction: What the model said.
        answers: What people said, ten as a rule.
        rule: How both are normalised.
    """
    said = normalised(prediction, rule=rule)
    matches = [normalised(answer, rule=rule) == said for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - match) / 3) for match in matches) / len(matches)

"""Our own lenient rules: what a response wraps its answer in does not count.

Their values are other numbers than those of the kits and never stand in one column with them.
"""

import re
from collections.abc import Sequence

from unidpo_mm.reasoning import strip_reasoning

from .boxed import boxed
from .clean_options import clean_option, inside_answer_tag, plain
from .relaxed import relaxed_match
from .yes_no import YesNo

__all__ = ["clean_match", "clean_option", "clean_yes_no", "cleaned"]

ANNOUNCED = re.compile(
    r"(?:answer|result|value|option|choice)\s*(?:is|are|:|=)\s*:?\s*", re.IGNORECASE
)
WRAPPING = " \t\n*_`'\"$\u201c\u201d\u2018\u2019"
"""Blanks, marks of Markdown and LaTeX, quotes straight and curly."""
ENDING = ".!,;:。"
WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
CURRENCY = re.compile(r"^(?:[$€£¥₹]|us\$|usd|eur|gbp)\s*|\s*(?:dollars?|euros?|usd|eur|gbp)$", re.I)
SEPARATOR = re.compile(r"(?<=\d)[,\u00a0\u2009\u202f ](?=\d{3}(?:\D|$))")
UNIT = re.compile(r"^(-?[\d.]+(?:e[+-]?\d+)?)\s*(?:%|percent|[^\W\d_]+\.?)$", re.IGNORECASE)


def cleaned(response: str) -> str:
    """Return a response without its wrapping.

    Reasoning, answer tags, a box, a phrase in front, quotes and a period are removed.
    """
    text = inside_answer_tag(strip_reasoning(response).text).strip()
    if boxes := boxed(text):
        text = plain(boxes[-1])
    announced = list(ANNOUNCED.finditer(text))
    if announced:
        text = text[announced[-1].end() :]
    text = text.strip(WRAPPING)
    while text and text[-1] in ENDING:
        text = text[:-1].strip(WRAPPING)
    return text


def clean_yes_no(response: str) -> YesNo | None:
    """Return the one of the words yes and no that a response holds, whatever surrounds it.

    Reasoning does not count. If both words occur, the one that an announced answer begins with
    counts, else the response's first word.
    """
    response = inside_answer_tag(strip_reasoning(response).text)
    said = {word.lower() for word in WORDS.findall(response)} & {"yes", "no"}
    if len(said) == 1:
        return "Yes" if "yes" in said else "No"
    for text in (cleaned(response), response):
        first = WORDS.search(text)
        if first and first[0].lower() in said:
            return "Yes" if first[0].lower() == "yes" else "No"
    return None


def clean_match(response: str, answers: Sequence[str]) -> bool:
    """Says whether a response matches an answer: numbers without units and separators, text alike.

    A percentage and the bare number are equal here, as both are common ways to read a chart.
    """
    said = cleaned(response)
    return relaxed_match(said, answers) or relaxed_match(_number(said), list(map(_number, answers)))


def _number(text: str) -> str:
    """Returns the number of a text that is one with currency or a unit; else the text."""
    bare = SEPARATOR.sub("", CURRENCY.sub("", text.strip()))
    found = UNIT.match(bare)
    return found[1] if found else bare

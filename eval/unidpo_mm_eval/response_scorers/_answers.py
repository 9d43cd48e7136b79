"""Final answers of responses, by the kind of question."""

import math
import re
from collections.abc import Mapping
from typing import Literal

from unidpo_mm.reasoning import strip_reasoning
from unidpo_mm.records import PreferenceRow

from ..scorers.boxed import find_boxes
from ..scorers.clean import clean_option, clean_yes_no, strip_wrapping
from ..scorers.math.normalize import normalize_answer

AnswerKind = Literal["math", "number", "option", "yes_no", "text"]
"""``math``: a formula, in a box or announced; ``number``: the last number; ``option``: a letter;
``yes_no``; ``text``: all of the response."""

OPTION = re.compile(r"^\s*\(?([A-J])[.):]\s+(\S.*)$", re.MULTILINE)
NUMBER = re.compile(r"(?:(?<![\d)])-)?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?")
"""A number; a hyphen after a digit or a parenthesis is not its sign."""
MINUS = "\u2212"
SOLUTION_END = re.compile(r"####\s*([^\n]+)")
"""The answer at the end of a solution, as in GSM8K."""
ANNOUNCED = re.compile(r"answer\s*(?:is|:)\s*([^\n]*)", re.IGNORECASE)


def final_answer(text: str, kind: AnswerKind, prompt: PreferenceRow) -> str | None:
    """Return the final answer of a response in a comparable form; `None` if it has none."""
    text = strip_reasoning(text).text
    if kind == "yes_no":
        return clean_yes_no(text)
    if kind == "option":
        return clean_option(text, options_of(prompt)).letter
    if kind == "number":
        return _number_text(text)
    if kind == "math":
        places = find_boxes(text) or ANNOUNCED.findall(text)
        if not places:
            return _number_text(text)
        return normalize_answer(places[-1].strip(" .$")) or None
    return " ".join(strip_wrapping(text).casefold().split()) or None


def options_of(prompt: PreferenceRow) -> Mapping[str, str]:
    """Return the options in the last message of a prompt; the letters A to E if it lists none."""
    listed = dict(OPTION.findall(prompt.messages[-1].text))
    return listed or dict.fromkeys("ABCDE", "")


def last_number(text: str) -> float | None:
    """Return the number in the last box, after "answer is", or at the end of a text."""
    for place in (*find_boxes(text)[-1:], *ANNOUNCED.findall(text)[-1:], text):
        if numbers := NUMBER.findall(place.replace(MINUS, "-")):
            value = float(numbers[-1].replace(",", ""))
            return value if math.isfinite(value) else None
    return None


def _number_text(text: str) -> str | None:
    value = last_number(text)
    return None if value is None else f"{value:.15g}"


def formula_of(gold: str) -> str:
    """Return the answer of a right answer that may be a complete solution."""
    places = find_boxes(gold) or SOLUTION_END.findall(gold)
    return places[-1].strip() if places else gold


def right_answer(gold: str, kind: AnswerKind, prompt: PreferenceRow) -> str | None:
    """Return the right answer in the form of `final_answer`; `None` if it is not of this kind."""
    if kind == "option":
        letter = gold.strip(" ().:").upper()
        return letter if letter in options_of(prompt) else final_answer(gold, kind, prompt)
    if kind == "text":
        return " ".join(gold.casefold().split()) or None
    return final_answer(gold, kind, prompt)

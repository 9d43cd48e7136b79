"""Prompt profiles: how a question is put to a model, one YAML file each, with a version.

A question has a kind: yes_no, options, short, math or caption. A profile says for each kind which
frame it has and what stands behind it; a benchmark may have an entry of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from ..data.samples import Sample
from ..discovery import load_shipped, shipped_names

__all__ = ["Framing", "PromptProfile", "load_prompts", "prompt_names", "worded"]

STRICT = ConfigDict(extra="forbid")
CHINESE = re.compile("[\u4e00-\u9fff]")
Place = Literal["first", "last", "marked"]
TRUTH = {"true": "True or False", "false": "True or False", "yes": "Yes or No", "no": "Yes or No"}


@validated(frozen=True, config=STRICT)
class Framing:
    """How questions of one kind are put.

    Attributes:
        frame: ``question`` is the question alone; ``labelled`` writes Hint, Question and Options
            before each part, ``lines`` the parts alone, one a line.
        suffix: What stands behind it.
        suffix_chinese: In place of that where the text so far holds a Chinese character.
        remove: A sentence of the question that is taken out first.
        capitalise: The question begins with a capital and goes on in small letters.
        hint_truth: Questions whose answer is yes or no, true or false, say so.
        strip: Blanks at the end are taken off.
        pictures: Where they stand; None for where the profile puts them.
    """

    frame: Literal["question", "labelled", "lines"] = "question"
    suffix: str = ""
    suffix_chinese: str | None = None
    remove: str = ""
    capitalise: bool = False
    hint_truth: bool = False
    strip: bool = False
    pictures: Place | None = None


@validated(frozen=True, config=STRICT)
class PromptProfile:
    """How questions are put.

    Attributes:
        id: Name of its file.
        title: As people call it.
        version: Raised whenever a word changes.
        kinds: Kind of question -> its framing.
        benchmarks: Benchmark -> its framing, where that is another.
        system: Text of the system turn; None for none.
        pictures: ``first`` puts all pictures before the text, ``last`` behind it, ``marked`` where
            ``<image 1>`` stands, and those without mark first.
    """

    id: str
    title: str
    version: int
    kinds: Mapping[str, Framing]
    benchmarks: Mapping[str, Framing] = field(default_factory=dict)
    system: str | None = None
    pictures: Place = "first"

    @property
    def label(self) -> str:
        """Id and version, as they are printed."""
        return f"{self.id}@{self.version}"

    def framing(self, benchmark: str, kind: str) -> Framing:
        """Returns the framing of a benchmark's questions."""
        return self.benchmarks.get(benchmark) or self.kinds.get(kind) or Framing()


def prompt_names() -> tuple[str, ...]:
    """Returns the names of all profiles."""
    return shipped_names(__name__)


@cache
def load_prompts(name: str) -> PromptProfile:
    """Returns the profile of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    return load_shipped(__name__, name, PromptProfile, "--prompt")


def worded(sample: Sample, framing: Framing) -> str:
    """Returns the words of a question."""
    question = sample.question.replace(framing.remove, "") if framing.remove else sample.question
    question = question.strip() if framing.remove else question
    question = question.capitalize() if framing.capitalise else question
    answer = sample.answers[0].strip().lower() if sample.answers else ""
    if framing.hint_truth and answer in TRUTH:
        question = f"{question} ({TRUTH[answer]})"
    text = _FRAMES[framing.frame](sample, question)
    chinese = framing.suffix_chinese is not None and CHINESE.search(text)
    suffix = framing.suffix_chinese if chinese else framing.suffix
    if not sample.options and framing.frame != "question":
        suffix = ""  # there is nothing to choose from
    text += suffix or ""
    return text.rstrip() if framing.strip else text


def _labelled(sample: Sample, question: str) -> str:
    text = f"Hint: {sample.hint}\n" if sample.hint else ""
    text += f"Question: {question}\n"
    return text + (f"Options:\n{_options(sample)}" if sample.options else "")


def _lines(sample: Sample, question: str) -> str:
    parts = [sample.hint] if sample.hint else []
    return "\n".join([*parts, question]) + ("\n" + _options(sample) if sample.options else "")


def _options(sample: Sample) -> str:
    return "".join(f"{letter}. {text}\n" for letter, text in sample.options.items())


_FRAMES = {
    "question": lambda sample, question: question,
    "labelled": _labelled,
    "lines": _lines,
}

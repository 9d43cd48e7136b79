"""Prompt profiles: how the text of a sample becomes a prompt.

A benchmark's questions have a kind: yes_no, options, short, math or caption. A profile has a
template per kind, and optionally one per benchmark.
"""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from ..data.samples import Sample

STRICT = ConfigDict(extra="forbid")
CHINESE = re.compile("[\u4e00-\u9fff]")
Placement = Literal["first", "last", "marked"]
TRUTH = {"true": "True or False", "false": "True or False", "yes": "Yes or No", "no": "Yes or No"}


@validated(frozen=True, config=STRICT)
class PromptTemplate:
    """The prompt of one kind of question."""

    # ``question`` is the question alone; ``labelled`` adds the labels Hint, Question and Options,
    # ``lines`` writes the same parts without labels
    frame: Literal["question", "labelled", "lines"] = "question"
    suffix: str = ""  # Text after the frame
    suffix_chinese: str | None = None  # Replaces the suffix if the text contains Chinese characters
    remove: str = ""  # Sentence that is removed from the question
    capitalize: bool = False  # Capitalize the first letter of the question and lower-case the rest
    # Questions whose answer is yes, no, true or false state these alternatives
    hint_truth: bool = False
    strip: bool = False  # Strip whitespace at the end
    images: Placement | None = None  # Placement of the images; `None` uses that of the profile


@validated(frozen=True, config=STRICT)
class PromptProfile:
    """The prompts of a protocol for some model families."""

    id: str
    title: str  # Name in lists
    version: int  # Increased whenever the text changes
    kinds: Mapping[str, PromptTemplate]  # Kind of question -> its template
    # Benchmark -> its template, if it differs
    benchmarks: Mapping[str, PromptTemplate] = field(default_factory=dict)
    system: str | None = None  # Text of the system message; `None` if there is none
    # ``first`` places all images before the text, ``last`` after it, ``marked`` where ``<image 1>``
    # occurs, and unmarked ones first
    images: Placement = "first"

    @property
    def label(self) -> str:
        """Id and version, as printed."""
        return f"{self.id}@{self.version}"

    def template(self, benchmark: str, kind: str) -> PromptTemplate:
        """Return the template for a benchmark's questions."""
        return self.benchmarks.get(benchmark) or self.kinds.get(kind) or PromptTemplate()


def render_question(sample: Sample, template: PromptTemplate) -> str:
    """Return the prompt text of a sample."""
    question = sample.question
    if template.remove:
        question = question.replace(template.remove, "").strip()
    question = question.capitalize() if template.capitalize else question
    answer = sample.answers[0].strip().lower() if sample.answers else ""
    if template.hint_truth and answer in TRUTH:
        question = f"{question} ({TRUTH[answer]})"
    options = "".join(f"{letter}. {text}\n" for letter, text in sample.options.items())
    if template.frame == "labelled":
        hint = f"Hint: {sample.hint}\n" if sample.hint else ""
        text = f"{hint}Question: {question}\n" + (f"Options:\n{options}" if options else "")
    elif template.frame == "lines":
        hint = f"{sample.hint}\n" if sample.hint else ""
        text = hint + question + (f"\n{options}" if options else "")
    else:
        text = question
    if template.frame == "question" or options:  # otherwise there is nothing to choose from
        is_chinese = template.suffix_chinese is not None and CHINESE.search(text)
        text += (template.suffix_chinese or "") if is_chinese else template.suffix
    return text.rstrip() if template.strip else text

"""The nouns of evaluation: a question, a response to it, and what the response scored."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Judged", "Picture", "Prediction", "Sample", "ScoredSample"]


@dataclass(frozen=True)
class Picture:
    """A picture of a question, unopened.

    Attributes:
        key: Equal for equal pictures; names clusters.
        content: The encoded picture as bytes, its path, a reference of the core, or None where the
            reader was told to leave it.
    """

    key: str
    content: Any = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One question of a benchmark.

    Attributes:
        id: As text; predictions are joined by it.
        where: File and row, for messages.
        question: As the file has it.
        answers: What is right; any of them, or all ten of a VQA question.
        options: Letter -> text of the non-empty options, in order.
        hint: What stands before the question.
        labels: What metrics are also reported by: ``category``, ``l2-category``, ``split``, ...
        cluster: Samples of one cluster are resampled together.
        unit: Samples of one unit are right or wrong together, as circular copies are.
        pictures: In order.
        extras: What a single benchmark needs beside this.
    """

    id: str
    where: str
    question: str = ""
    answers: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    unit: str = ""
    pictures: tuple[Picture, ...] = ()
    extras: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or self.id)
        object.__setattr__(self, "cluster", self.cluster or self.unit)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a model said to one question.

    Attributes:
        id: Of the sample.
        response: Untouched.
        where: File and row, for messages.
        finish_reason: ``length`` where the response was cut; None where nobody said.
        error: Why there is no response; None where there is one.
    """

    id: str
    response: str
    where: str
    finish_reason: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Judged:
    """What a rule makes of one response.

    Attributes:
        score: From 0 to 1.
        answer: What was understood; None where nothing was.
        note: What else should be known, for example ``refused``.
        details: Numbers that the benchmark's metrics need beside the score.
    """

    score: float
    answer: str | None
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ScoredSample:
    """A sample with its response and what it scored: one entry of ``per_sample`` in a result.

    Attributes:
        id, question, answers, options, labels, cluster, unit, extras: As of the sample.
        response: Untouched; None where there is no prediction.
        score: From 0 to 1.
        answer: What was understood of the response.
        unparsed: Nothing was.
        truncated: The response was cut; None where nobody said.
        empty: The response holds nothing but blanks.
        missing: There is no prediction.
        error: Why there is no response.
        note: What the rule noted.
        details: Numbers for the benchmark's metrics.
        reasoning: The response holds reasoning.
        unclosed: Its reasoning has no end.
        scored: The part of the response that was scored; `None` for all of it.
    """

    id: str
    question: str = ""
    answers: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    unit: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)
    response: str | None = None
    score: float = 0.0
    answer: str | None = None
    unparsed: bool = False
    truncated: bool | None = None
    empty: bool = False
    missing: bool = False
    error: str | None = None
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    reasoning: bool = False
    unclosed: bool = False
    scored: str | None = None

"""The records of evaluation: a sample, a prediction for it, and the grade of the prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Image:
    """An image of a sample, not opened yet."""

    key: str  # Equal for equal images; used to form clusters
    # Encoded bytes, a path, or an image reference of the core; `None` if the reader was asked for
    # samples without images
    content: Any = None


@dataclass(frozen=True)
class Video:
    """A video of a sample, not opened yet."""

    key: str  # Equal for equal videos; used to form clusters
    # Encoded bytes, a path, a list of frames, or a video reference of the core; `None` if the
    # reader was asked for samples without images
    content: Any = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One item of a benchmark."""

    id: str  # Joins the sample with its prediction
    where: str  # File and row, for error messages
    question: str = ""  # The text as it is in the file
    # The correct answers; any of them counts, or all ten of a VQA question
    answers: tuple[str, ...] = ()
    # Letter -> text of the non-empty options, in order
    options: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""  # Text in front of the question
    # Groups for which metrics are reported separately, such as ``category`` or ``split``
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""  # Samples of one cluster are resampled together
    unit: str = ""  # Samples of one unit count as one item, such as circular copies of a question
    images: tuple[Image, ...] = ()  # In order
    videos: tuple[Video, ...] = ()  # In order; they follow the images
    extras: Mapping[str, str] = field(default_factory=dict)  # Benchmark-specific fields

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", self.unit or self.id)
        object.__setattr__(self, "cluster", self.cluster or self.unit)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A model's response to one sample."""

    id: str
    response: str  # The unmodified text
    where: str  # File and row, for error messages
    finish_reason: str | None = None  # ``length`` if the response was truncated; `None` if unknown
    error: str | None = None  # Why there is no response; `None` if there is one


@dataclass(frozen=True)
class Grade:
    """The result of scoring one response."""

    score: float  # From 0 to 1
    answer: str | None  # The answer extracted from the response; `None` if there is none
    note: str = ""  # A remark, such as ``refused``
    # Additional numbers from which the benchmark's metrics are computed
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GradedSample:
    """A sample with its response and grade: one entry of ``per_sample`` in a result file."""

    id: str  # From the sample
    question: str = ""
    answers: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    cluster: str = ""
    unit: str = ""
    extras: Mapping[str, str] = field(default_factory=dict)
    response: str | None = None  # The unmodified response; `None` without a prediction
    score: float = 0.0  # From the grade
    answer: str | None = None
    unparsed: bool = False  # No answer could be extracted from the response
    truncated: bool | None = None  # The response hit the token limit; `None` if unknown
    empty: bool = False  # The response is empty or whitespace
    missing: bool = False  # There is no prediction
    error: str | None = None  # Why there is no response
    note: str = ""
    details: Mapping[str, float] = field(default_factory=dict)
    reasoning: bool = False  # The response contains reasoning
    unclosed: bool = False  # The reasoning has no end
    # The part of the response that was scored; `None` if that is all of it
    scored: str | None = None

    @property
    def scored_text(self) -> str:
        """The part of the response that was scored."""
        return (self.response or "") if self.scored is None else self.scored

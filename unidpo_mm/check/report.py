"""Records of the results of a data check, which are printed or written as JSON or HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import Problem

__all__ = [
    "CheckReport",
    "ExampleRow",
    "Histogram",
    "ImageReport",
    "LengthReport",
    "OverlapReport",
    "ScoreReport",
    "SourceSummary",
    "StartWeights",
    "Summary",
    "VideoReport",
]


@dataclass(frozen=True)
class Summary:
    """Summary of numbers: count, mean, and the quantiles 0, 5, 50, 95 and 100 %."""

    count: int
    mean: float
    low: float
    p5: float
    median: float
    p95: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Counts of a histogram between its edges, of which there is one more than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """Summary of a source.

    Attributes:
        name, path: Name and path of the source.
        judge, scale: Declared judge and scale of its scores.
        records: Number of records.
        rows: Number of rows that a run could use.
        problems: Number of problems.
        formats: Format -> number of records.
        unread: Column that no format reads -> number of records that have it.
        notes: Sentences about its pairs and columns.
        evaluation: Whether it is held out for evaluation.
    """

    name: str
    path: str
    judge: str | None
    scale: Sequence[float] | None
    records: int
    rows: int
    problems: int
    formats: Mapping[str, int]
    unread: Mapping[str, int]
    notes: Sequence[str]
    evaluation: bool = False


@dataclass(frozen=True, kw_only=True)
class LengthReport:
    """Lengths of prompts and responses, and their relation to the preferences.

    Attributes:
        unit: ``tokens`` with a model, else ``characters``.
        prompt, response, row: Summaries of prompts, responses, and prompts with their longest
            response; images count with a model only.
        pairs: Number of pairs.
        chosen_longer, equal: Shares of pairs whose chosen response is longer, or has equal length.
        margin_correlation: Spearman's rho of score margin and length difference; `None` without
            scores.
        sharing: Factor by which shared prompts reduce the number of tokens (characters).
        grouping: The same if rows with the same prompt are also joined.
        truncated, shrunk, dropped: Truncated responses, images scaled down and rows dropped by the
            length policy; `None` without a model or a maximum length.
    """

    unit: str
    prompt: Summary
    response: Summary
    row: Summary
    pairs: int
    chosen_longer: float
    equal: float
    margin_correlation: float | None
    sharing: float
    grouping: float
    truncated: int | None = None
    shrunk: int | None = None
    dropped: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """Scores of a source, on the scale of the run, and their initial weights.

    Attributes:
        source: Name of the source.
        scored: Number of pairs with both scores.
        pairs: Number of pairs.
        chosen, rejected, margin: Summaries of scores and their differences.
        scores: Histogram of all scores.
        margins: Histogram of the differences.
        w_qual: Summary of the quality weights at the start of a run.
        quality: Histogram of these weights.
        effective_share: Effective sample size of the weights over the number of pairs.
        eta, tau_good: Loss parameters of the source.
        good: Share of chosen responses whose score is at least tau_good.
        misordered, ties: Shares of pairs whose rejected response has a higher or an equal score.
    """

    source: str
    scored: int
    pairs: int
    chosen: Summary
    rejected: Summary
    margin: Summary
    scores: Histogram
    margins: Histogram
    w_qual: Summary
    quality: Histogram
    effective_share: float
    eta: float
    tau_good: float
    good: float
    misordered: float
    ties: float


@dataclass(frozen=True, kw_only=True)
class ImageReport:
    """The images of all rows.

    Attributes:
        per_row: Number of images -> number of rows.
        distinct: Number of distinct images.
        width, height, megapixels: Summaries of the distinct images.
        formats: File format (PNG, JPEG) -> number of images.
        broken: Number of images that cannot be opened.
        tokens: Summary of the image tokens of rows with images; `None` without a model.
    """

    per_row: Mapping[int, int]
    distinct: int
    width: Summary | None
    height: Summary | None
    megapixels: Summary | None
    formats: Mapping[str, int]
    broken: int
    tokens: Summary | None = None


@dataclass(frozen=True, kw_only=True)
class VideoReport:
    """The videos of all rows.

    Attributes:
        per_row: Number of videos -> number of rows.
        distinct: Number of distinct videos.
        seconds, frames, megapixels: Summaries of the distinct videos: their length, the number of
            frames that a run samples, and the size of a frame.
        broken: Number of videos that cannot be opened.
        tokens: Summary of the video tokens of rows with videos; `None` without a model, and for
            models that take frames as images.
    """

    per_row: Mapping[int, int]
    distinct: int
    seconds: Summary | None
    frames: Summary | None
    megapixels: Summary | None
    broken: int
    tokens: Summary | None = None


@dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """Duplicates, contradictions and overlap with the held-out rows.

    Attributes:
        duplicates: Rows that equal an earlier one in prompt, images, videos and responses.
        first_duplicates: Places of the first ones, with those of the earlier rows.
        contradictions: Pairs that contradict another pair of the same prompt.
        shared_prompts: Held-out rows whose prompt is in the training rows.
        shared_images: Held-out rows with an image or a video of the training rows.
        first_shared: Places of the first ones.
    """

    duplicates: int
    first_duplicates: Sequence[tuple[str, str]]
    contradictions: int
    shared_prompts: int
    shared_images: int
    first_shared: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """Weights of a sample of pairs under a model before training.

    Attributes:
        pairs: Number of pairs in the sample.
        w_perf: Summary of the performance weights.
        by_length: (tokens of the longest response, w_perf) of each pair.
        gradient_share: Domain -> its share of the sum of all weights.
        pair_share: Domain -> its share of the pairs.
        effective_share: Effective sample size of the weights over the number of pairs.
    """

    pairs: int
    w_perf: Summary
    by_length: Sequence[tuple[float, float]]
    gradient_share: Mapping[str, float]
    pair_share: Mapping[str, float]
    effective_share: float


@dataclass(frozen=True, kw_only=True)
class ExampleRow:
    """An example row of the page: its texts, and its images as small JPEGs."""

    where: str
    prompt: str
    chosen: str
    rejected: str
    scores: str
    images: Sequence[bytes] = ()


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Results of a data check.

    Attributes:
        sources: Summaries of the sources.
        domains: Domain -> number of training rows.
        rows, pairs, labels, responses, prompts: Numbers in the training rows.
        pairs_per_prompt: Number of pairs -> number of prompts.
        lengths, scores, images, videos, overlap, weights: See their classes; `None` if not
            available.
        margin_by_length: (length difference, score margin) of a sample of the pairs.
        warnings: Warnings.
        problems: Problems with which a run would not start.
        model: Name of the model, if any.
        examples: Example rows.
    """

    sources: Sequence[SourceSummary]
    domains: Mapping[str, int]
    rows: int
    pairs: int
    labels: int
    responses: int
    prompts: int
    pairs_per_prompt: Mapping[int, int]
    lengths: LengthReport | None
    scores: Sequence[ScoreReport]
    images: ImageReport
    videos: VideoReport
    overlap: OverlapReport
    weights: StartWeights | None
    margin_by_length: Sequence[tuple[float, float]]
    warnings: Sequence[str]
    problems: Sequence[Problem]
    model: str | None = None
    examples: Sequence[ExampleRow] = field(default=(), repr=False)

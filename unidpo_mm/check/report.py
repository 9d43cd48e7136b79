"""What a check of data found, as records that become text, JSON and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import Problem

__all__ = [
    "CheckReport",
    "Histogram",
    "ImageReport",
    "LengthReport",
    "OverlapReport",
    "ScoreReport",
    "Shown",
    "SourceSummary",
    "StartWeights",
    "Summary",
]


@dataclass(frozen=True)
class Summary:
    """Numbers in a few: count, mean, and the values that 0, 5, 50, 95 and 100 % do not exceed."""

    count: int
    mean: float
    low: float
    p5: float
    median: float
    p95: float
    high: float


@dataclass(frozen=True)
class Histogram:
    """Counts between edges; one more edge than counts."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SourceSummary:
    """One source.

    Attributes:
        name, path: Which it is.
        judge, scale: What is declared of its scores.
        records: Records read.
        rows: Rows that a run could use.
        problems: Problems with the others.
        formats: Format -> records.
        unread: Column -> records that have it; no format reads it.
        notes: What was done with pairs.
        evaluation: It is held-out data.
    """

    name: str
    path: str
    judge: str | None
    scale: tuple[float, float] | None
    records: int
    rows: int
    problems: int
    formats: Mapping[str, int]
    unread: Mapping[str, int]
    notes: Sequence[str]
    evaluation: bool = False


@dataclass(frozen=True, kw_only=True)
class LengthReport:
    """How long prompts and answers are, and whether length gives the preference away.

    Attributes:
        unit: ``tokens`` with a model, else ``characters``.
        prompt, answer, row: Of prompts, of answers, of prompt with longest answer; images count
            with a model only.
        pairs: How many there are.
        chosen_longer, equal: Share of them whose chosen answer is longer, or as long.
        margin_correlation: Spearman's rho of score margin and difference of lengths; None where
            there are no scores.
        sharing: How many times fewer tokens (characters) a run with shared prompts computes, and
            with rows of one prompt joined.
        grouping: The same where rows that share their prompt are joined.
        cut, shrunk, dropped: Answers cut, images made smaller, rows left out by the length
            policy; None without a model and a limit.
    """

    unit: str
    prompt: Summary
    answer: Summary
    row: Summary
    pairs: int
    chosen_longer: float
    equal: float
    margin_correlation: float | None
    sharing: float
    grouping: float
    cut: int | None = None
    shrunk: int | None = None
    dropped: int | None = None


@dataclass(frozen=True, kw_only=True)
class ScoreReport:
    """The scores of one source, in the unit of the run, and the weights that they make.

    Attributes:
        source: Its name.
        scored: Pairs with both scores, and pairs in all.
        pairs: All pairs.
        chosen, rejected, margin: Their scores and the differences.
        scores: Histogram of all scores.
        margins: Histogram of the differences.
        w_qual: The quality weights that a run would start with.
        quality: Histogram of them.
        effective_share: Effective sample size of the weights over the number of pairs.
        eta, tau_good: The parameters that hold for the source.
        good: Share of chosen answers that reach tau_good.
        misordered, ties: Shares of pairs whose rejected answer scores higher, or the same.
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
        per_row: Images a row -> rows.
        distinct: Different images.
        width, height, megapixels: Of the different ones.
        kinds: Format (PNG, JPEG) -> images.
        broken: How many cannot be opened.
        tokens: Tokens a row with images spends on them; None without a model.
    """

    per_row: Mapping[int, int]
    distinct: int
    width: Summary | None
    height: Summary | None
    megapixels: Summary | None
    kinds: Mapping[str, int]
    broken: int
    tokens: Summary | None = None


@dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """What is there more than once.

    Attributes:
        duplicates: Rows that equal an earlier one in prompt, images and answers.
        first_duplicates: Where some of them are, with the earlier row.
        contradictions: Pairs that another pair of the same prompt has the other way round.
        shared_prompts, shared_images: Held-out rows whose prompt, or an image, is trained on.
        first_shared: Where some of them are.
    """

    duplicates: int
    first_duplicates: Sequence[tuple[str, str]]
    contradictions: int
    shared_prompts: int
    shared_images: int
    first_shared: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """What a model makes of a sample of the pairs before it is trained.

    Attributes:
        pairs: Size of the sample.
        w_perf: The performance weights.
        by_length: (longest answer in tokens, w_perf) of each pair.
        gradient_share: Domain -> its share of the sum of all pairs' weights.
        pair_share: Domain -> its share of the pairs.
        effective_share: Effective sample size of both weights over the number of pairs.
    """

    pairs: int
    w_perf: Summary
    by_length: Sequence[tuple[float, float]]
    gradient_share: Mapping[str, float]
    pair_share: Mapping[str, float]
    effective_share: float


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A row of the page: the texts, and its images as small PNGs or JPEGs."""

    where: str
    prompt: str
    chosen: str
    rejected: str
    scores: str
    images: Sequence[bytes] = ()


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """Everything that a check found.

    Attributes:
        sources: One by one.
        domains: Domain -> rows.
        rows, pairs, responses, prompts: Counts of the training rows.
        pairs_per_prompt: Pairs of a prompt -> prompts.
        lengths, scores, images, overlap, weights: See there; None where there is nothing to tell.
        margin_by_length: (chosen answer longer by, score margin) of a sample of the pairs.
        warnings: What deserves a look.
        problems: What a run would refuse.
        model: The model asked, if any.
        shown: A few rows.
    """

    sources: Sequence[SourceSummary]
    domains: Mapping[str, int]
    rows: int
    pairs: int
    responses: int
    prompts: int
    pairs_per_prompt: Mapping[int, int]
    lengths: LengthReport | None
    scores: Sequence[ScoreReport]
    images: ImageReport
    overlap: OverlapReport
    weights: StartWeights | None
    margin_by_length: Sequence[tuple[float, float]]
    warnings: Sequence[str]
    problems: Sequence[Problem]
    model: str | None = None
    shown: Sequence[Shown] = field(default=(), repr=False)

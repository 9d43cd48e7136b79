"""Read every row once before training, so that a run never starts with invalid data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy

from ..adapter import Adapter
from ..errors import ImageError, Problem, RowTooLong
from ..records import Layout, PreferenceRow
from .columns import RowColumns
from .measure import MeasuredRow, Measurements, measure_with_index
from .row_table import table_of, take_rows

__all__ = ["Preflight", "survey"]

MAX_PROBLEMS = 100_000
"""Number of problems that are kept; the others are counted, because they may fill the memory."""


@dataclass
class Preflight:
    """Counts of encoding all rows once.

    Attributes:
        rows, pairs, labels, responses, images, videos: Numbers in rows that are not skipped.
        domains: Domain -> number of rows.
        prompts: Number of distinct prompts of the training rows, see `data.groups.prompt_key`.
        longest: Tokens of the longest plain row.
        cut_responses: Responses truncated to fit `max_length`.
        shrunk_images: Images scaled down to fit `max_length`.
        shortened_videos: Videos with fewer or smaller frames to fit `max_length`.
        identical_pairs: Pairs whose responses have the same tokens, for example after truncation.
        too_long: Number of rows skipped because they do not fit.
        unreadable: Problems of the rows skipped because an image or a video is missing or broken.
        skipped: Indices of all skipped rows.
        tokens: Layout -> tokens of all rows; ``packed`` also for ``joined``.
        tokens_of_pair: Layout -> maximum number of tokens that a pair adds to a batch; ``packed``
            also for ``joined``.
        measured: Measurements of each row, including skipped ones; empty unless requested.
    """

    rows: int = 0
    pairs: int = 0
    labels: int = 0
    responses: int = 0
    images: int = 0
    videos: int = 0
    domains: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    longest: int = 0
    cut_responses: int = 0
    shrunk_images: int = 0
    shortened_videos: int = 0
    identical_pairs: int = 0
    too_long: int = 0
    unreadable: list[Problem] = field(default_factory=list)
    skipped: set[int] = field(default_factory=set)
    tokens: Counter[Layout] = field(default_factory=Counter)
    tokens_of_pair: dict[Layout, float] = field(default_factory=lambda: {"plain": 0, "packed": 0})
    measured: list[MeasuredRow] = field(default_factory=list, repr=False)

    def reasons(self) -> str:
        """Return the numbers of skipped rows with the reasons."""
        unreadable = len(self.skipped) - self.too_long
        counts = (
            (self.too_long, "longer than max_length"),
            (unreadable, f"with unreadable {self.media}"),
        )
        return ", ".join(f"{number:,} {reason}" for number, reason in counts if number)

    @property
    def media(self) -> str:
        """The kinds of media in the rows, for messages."""
        return "images or videos" if self.videos else "images"

    def count(self, columns: RowColumns, measured: Measurements) -> None:
        """Add the counts of rows, except those that cannot be encoded."""
        encoded = numpy.ones(len(columns), dtype=bool)
        encoded[list(measured.refused)] = False
        numbers = {name: values[encoded] for name, values in measured.numbers.items()}
        columns = columns.take(numpy.flatnonzero(encoded))
        self.rows = len(columns)
        self.pairs, self.responses = int(columns.pairs.sum()), int(columns.responses.sum())
        self.labels = len(columns.labels.values)
        self.images, self.videos = int(columns.images.sum()), int(columns.videos.sum())
        domains = numpy.bincount(columns.domain, minlength=len(columns.domain_names))
        self.domains.update(
            {name: n for name, n in zip(columns.domain_names, domains.tolist(), strict=True) if n}
        )
        self.cut_responses = int(numbers["truncated"].sum())
        self.shrunk_images = int(numbers["shrunk"].sum())
        self.shortened_videos = int(numbers["shortened"].sum())
        self.identical_pairs = int(numbers["identical"].sum())
        lengths = measured.responses.take(numpy.flatnonzero(encoded))
        if not len(columns):
            return
        starts, responses = lengths.offsets[:-1], lengths.lengths
        longest = numbers["prompt"] + numpy.maximum.reduceat(lengths.values, starts)
        total = numpy.add.reduceat(lengths.values, starts)
        packed = numbers["prompt"] + total
        plain = responses * numbers["prompt"] + total
        self.longest = int(longest.max())
        self.tokens.update({"plain": int(plain.sum()), "packed": int(packed.sum())})
        units = numpy.where(numbers["pairs"] > 0, numbers["pairs"], responses)
        self.tokens_of_pair = {
            "plain": float((responses * longest / units).max()),
            "packed": float((packed / units).max()),
        }

    def kept(self, rows: Sequence[PreferenceRow], first: int = 0) -> Sequence[PreferenceRow]:
        """Return the rows that are not skipped; `first` is the index of the first one."""
        numbers = (n for n in range(len(rows)) if n + first not in self.skipped)
        return take_rows(rows, numbers) if self.skipped else rows


def survey(
    rows: Sequence[PreferenceRow],
    adapter: Adapter,
    *,
    training: int | None = None,
    workers: int = 0,
    drop_long: bool = False,
    max_skipped_fraction: float = 0.0,
    keep: bool = False,
) -> tuple[Preflight, list[Problem]]:
    """Encode every row once; return the counts and the problems that a run would report.

    Args:
        rows: All rows of a run, starting with the training rows.
        adapter: The adapter of the model.
        training: Number of training rows, of which distinct prompts are counted; `None` for all.
        workers: Number of worker processes.
        drop_long: Whether to skip rows that do not fit.
        max_skipped_fraction: Maximum share of rows that may be skipped because of their images.
        keep: Whether to keep the measurements of each row.
    """
    result = Preflight()
    problems: list[Problem] = []
    total = 0
    measured = measure_with_index(rows, adapter, workers=workers)
    table = table_of(rows)
    result.count(table.columns, measured)
    if keep:
        result.measured = [measured[number] for number in range(len(rows))]
    for number, refused in measured.refused.items():
        if drop_long and refused.kind is RowTooLong:
            result.too_long += 1
            result.skipped.add(number)
        elif max_skipped_fraction and issubclass(refused.kind, ImageError):
            result.unreadable += refused.problems
            result.skipped.add(number)
        else:
            total += len(refused.problems)
            problems += refused.problems[: MAX_PROBLEMS - len(problems)]
    keys = zip(table.keys("prompt"), table.media_keys, strict=True)
    readable = range(len(rows) if training is None else training)
    result.prompts = len(
        {key for number, key in zip(readable, keys, strict=False) if number not in measured.refused}
    )
    if len(result.skipped) - result.too_long > max_skipped_fraction * len(rows):
        total += len(result.unreadable)
        problems += result.unreadable[: MAX_PROBLEMS - len(problems)]
    if hidden := total - len(problems):
        text = f"{hidden:,} more problems were found"
        problems.append(Problem("data", text, "Fix the ones above first"))
    return result, list(dict.fromkeys(problems))  # a missing package is the same problem of all

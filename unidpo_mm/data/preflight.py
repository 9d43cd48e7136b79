"""Read every row once before training, so that a run never starts with invalid data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..adapter import Adapter
from ..errors import ImageError, Problem, RowTooLong
from ..records import Layout, PreferenceRow
from .groups import prompt_key
from .measure import MeasuredRow, measure_with_index
from .media_keys import MediaKeys

__all__ = ["Preflight", "survey"]

MAX_PROBLEMS = 100_000
"""Number of problems that are kept; the others are counted, because they may fill the memory."""


@dataclass
class Preflight:
    """Counts of encoding all rows once.

    Attributes:
        rows, pairs, responses, images, videos: Numbers in rows that are not skipped.
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

    def count(self, row: PreferenceRow, measured: MeasuredRow) -> None:
        """Add the counts of a row that is not skipped."""
        self.rows += 1
        self.pairs += len(row.pairs)
        self.responses += len(row.responses)
        self.images += len(row.images)
        self.videos += len(row.videos)
        self.domains[row.domain] += 1
        self.longest = max(self.longest, measured.longest)
        self.cut_responses += measured.truncated
        self.shrunk_images += measured.shrunk
        self.shortened_videos += measured.shortened
        self.identical_pairs += measured.identical
        self.tokens.update({"plain": measured.plain, "packed": measured.packed})
        units, maximum = measured.pairs or len(measured.responses), self.tokens_of_pair
        padded = len(measured.responses) * measured.longest
        maximum["plain"] = max(maximum["plain"], padded / units)
        maximum["packed"] = max(maximum["packed"], measured.packed / units)

    def kept(self, rows: Sequence[PreferenceRow], first: int = 0) -> list[PreferenceRow]:
        """Return the rows that are not skipped; `first` is the index of the first one."""
        return [row for number, row in enumerate(rows, start=first) if number not in self.skipped]


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
    readable: list[PreferenceRow] = []
    problems: list[Problem] = []
    total = 0
    training = len(rows) if training is None else training
    measured_rows = measure_with_index(rows, adapter, workers=workers)
    for number, (row, measured) in enumerate(zip(rows, measured_rows, strict=True)):
        if keep:
            result.measured.append(measured)
        if not measured.problems:
            result.count(row, measured)
            if number < training:
                readable.append(row)
        elif drop_long and measured.kind is RowTooLong:
            result.too_long += 1
            result.skipped.add(number)
        elif max_skipped_fraction and issubclass(measured.kind, ImageError):
            result.unreadable += measured.problems
            result.skipped.add(number)
        else:
            total += len(measured.problems)
            problems += measured.problems[: MAX_PROBLEMS - len(problems)]
    keys = MediaKeys(readable)
    result.prompts = len({prompt_key(row, keys.of(row)) for row in readable})
    if len(result.skipped) - result.too_long > max_skipped_fraction * len(rows):
        total += len(result.unreadable)
        problems += result.unreadable[: MAX_PROBLEMS - len(problems)]
    if hidden := total - len(problems):
        text = f"{hidden:,} more problems were found"
        problems.append(Problem("data", text, "Fix the ones above first"))
    return result, list(dict.fromkeys(problems))  # a missing package is the same problem of all

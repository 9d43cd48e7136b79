"""Reads every row and image once before training, so that a run never starts on bad data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..adapter import Adapter
from ..errors import DataError, ImageError, Problem, RowTooLong
from ..records import Layout, PreferenceRow
from .groups import prompt_key
from .images import ImageKeys
from .measure import MeasuredRow, measure_rows

__all__ = ["Preflight", "preflight", "survey"]

MAX_KEPT = 100_000
"""Problems kept in full; a huge file of one mistake need not fill the memory."""


@dataclass
class Preflight:
    """What a pass over rows found.

    Attributes:
        rows, pairs, responses, images: Counts.
        domains: Rows of each domain.
        prompts: Distinct prompts of the training rows, see `data.groups.prompt_key`.
        longest: Tokens of the longest plain row.
        cut_responses: Responses shortened to fit `max_length`.
        shrunk_images: Images made smaller for it.
        alike_pairs: Pairs whose answers are the same tokens, for example after they were cut.
        too_long: Rows left out since they do not fit.
        unreadable: Rows left out since an image is missing or broken; the first of them say why.
        left_out: Numbers of all these rows.
        tokens: Layout -> tokens of all rows; ``packed`` stands for ``joined``, too.
        tokens_of_pair: Layout -> most tokens that one pair adds to a batch, likewise.
        measured: What each row measures, skipped ones too; empty unless that was kept.
    """

    rows: int = 0
    pairs: int = 0
    responses: int = 0
    images: int = 0
    domains: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    longest: int = 0
    cut_responses: int = 0
    shrunk_images: int = 0
    alike_pairs: int = 0
    too_long: int = 0
    unreadable: list[Problem] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    tokens: Counter[Layout] = field(default_factory=Counter)
    tokens_of_pair: dict[Layout, float] = field(default_factory=lambda: {"plain": 0, "packed": 0})
    measured: list[MeasuredRow] = field(default_factory=list, repr=False)

    def reasons(self) -> str:
        """Return how many rows are skipped for what."""
        images = len(self.left_out) - self.too_long
        counts = ((self.too_long, "longer than max_length"), (images, "with unreadable images"))
        return ", ".join(f"{number:,} {reason}" for number, reason in counts if number)

    def count(self, row: PreferenceRow, measured: MeasuredRow) -> None:
        """Add what was found in a row that is kept."""
        self.rows += 1
        self.pairs += len(row.pairs)
        self.responses += len(row.responses)
        self.images += len(row.images)
        self.domains[row.domain] += 1
        self.longest = max(self.longest, measured.longest)
        self.cut_responses += measured.cut
        self.shrunk_images += measured.shrunk
        self.alike_pairs += measured.alike
        self.tokens.update({"plain": measured.plain, "packed": measured.packed})
        units, most = measured.pairs or len(measured.answers), self.tokens_of_pair
        padded = len(measured.answers) * measured.longest
        most["plain"] = max(most["plain"], padded / units)
        most["packed"] = max(most["packed"], measured.packed / units)

    def kept(self, rows: Sequence[PreferenceRow], first: int = 0) -> list[PreferenceRow]:
        """Return the rows that are not left out; `first` is the number of the first of them."""
        return [row for number, row in enumerate(rows, start=first) if number not in self.left_out]


def preflight(
    rows: Sequence[PreferenceRow],
    adapter: Adapter,
    *,
    workers: int = 0,
    drop_long: bool = False,
    max_skipped_fraction: float = 0.0,
) -> Preflight:
    """Encode every row once and count; tensors are not kept. See `survey`.

    Raises:
        DataError: With every problem.
    """
    result, problems = survey(
        rows,
        adapter,
        workers=workers,
        drop_long=drop_long,
        max_skipped_fraction=max_skipped_fraction,
    )
    if problems:
        raise DataError(problems)
    return result


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
    """Encode every row once; return the counts, and what a run refuses.

    Args:
        rows: All rows of a run, those to train on first.
        adapter: Encodes them.
        training: Number of rows to train on; None for all. Distinct prompts are counted of these.
        workers: Processes that share the work, as for the data loader.
        drop_long: Skip rows that do not fit.
        max_skipped_fraction: Share of rows that may be skipped for their images.
        keep: Keep what each row measures.
    """
    result = Preflight()
    prompts, problems = set(), _Problems()
    unreadable: list[Problem] = []
    keys = ImageKeys()
    training = len(rows) if training is None else training
    measured_rows = measure_rows(rows, adapter, workers=workers)
    for number, (row, measured) in enumerate(zip(rows, measured_rows, strict=True)):
        if keep:
            result.measured.append(measured)
        if not measured.problems:
            result.count(row, measured)
            if number < training:
                prompts.add(prompt_key(row, keys.of(row)))
        elif drop_long and measured.kind is RowTooLong:
            result.too_long += 1
            result.left_out.add(number)
        elif max_skipped_fraction and measured.kind is ImageError:
            unreadable += measured.problems
            result.left_out.add(number)
        else:
            problems.add(measured.problems)
    result.prompts = len(prompts)
    if len(result.left_out) - result.too_long > max_skipped_fraction * len(rows):
        problems.add(unreadable)
    result.unreadable = unreadable
    return result, problems.all()


class _Problems:
    """Keeps the first problems in full and counts the others."""

    def __init__(self) -> None:
        self.shown: list[Problem] = []
        self.hidden = 0

    def add(self, problems: Sequence[Problem]) -> None:
        kept = problems[: max(MAX_KEPT - len(self.shown), 0)]
        self.shown += kept
        self.hidden += len(problems) - len(kept)

    def all(self) -> list[Problem]:
        if self.hidden:
            remedy = "Repair the ones above first"
            problem = f"{self.hidden:,} more problems were found"
            self.shown.append(Problem("data", problem, remedy))
        return self.shown

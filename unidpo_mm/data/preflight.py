"""Reads every row and picture once before training, so that a run never starts on bad data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ..adapter import Adapter
from ..errors import DataError, PictureError, Problem, RowTooLong
from ..records import Layout, PreferenceRow
from .images import identity

__all__ = ["Preflight", "preflight"]

SHOWN = 200
"""Problems kept in full; a whole file of one mistake need not fill the memory."""


@dataclass
class Preflight:
    """What a pass over rows found.

    Attributes:
        rows, pairs, responses, images: Counts.
        domains: Rows of each domain.
        prompts: Distinct prompts with their pictures.
        longest: Tokens of the longest plain row.
        cut_responses: Responses shortened to fit `max_length`.
        shrunk_pictures: Pictures made smaller for it.
        too_long: Rows left out since they do not fit.
        unreadable: Rows left out since a picture is missing or broken; the first of them say why.
        left_out: Numbers of all these rows.
        tokens: Layout -> tokens of all rows; ``packed`` stands for ``joined``, too.
        tokens_of_pair: Layout -> most tokens that one pair adds to a batch, likewise.
    """

    rows: int = 0
    pairs: int = 0
    responses: int = 0
    images: int = 0
    domains: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    longest: int = 0
    cut_responses: int = 0
    shrunk_pictures: int = 0
    too_long: int = 0
    unreadable: list[Problem] = field(default_factory=list)
    left_out: set[int] = field(default_factory=set)
    tokens: Counter[Layout] = field(default_factory=Counter)
    tokens_of_pair: dict[Layout, float] = field(default_factory=lambda: {"plain": 0, "packed": 0})
    problems: list[Problem] = field(default_factory=list)

    def count(self, row: PreferenceRow, finding: "_Finding") -> None:
        """Adds what was found in a row that is kept."""
        self.rows += 1
        self.pairs += len(row.pairs)
        self.responses += len(row.responses)
        self.images += len(row.images)
        self.domains[row.domain] += 1
        self.longest = max(self.longest, finding.longest)
        self.cut_responses += finding.cut
        self.shrunk_pictures += finding.shrunk
        self.tokens.update(finding.tokens)
        most = self.tokens_of_pair
        most["plain"] = max(most["plain"], finding.plain)
        most["packed"] = max(most["packed"], finding.packed)

    def kept(self, rows: Sequence[PreferenceRow], first: int = 0) -> list[PreferenceRow]:
        """Returns the rows that are not left out; `first` is the number of the first of them."""
        return [row for number, row in enumerate(rows, start=first) if number not in self.left_out]


@dataclass(frozen=True)
class _Finding:
    longest: int = 0
    cut: int = 0
    shrunk: int = 0
    tokens: dict[Layout, int] = field(default_factory=dict)
    plain: float = 0
    packed: float = 0
    problems: tuple[Problem, ...] = ()
    kind: type[DataError] = DataError


class _Encoding(Dataset[_Finding]):
    def __init__(self, rows: Sequence[PreferenceRow], adapter: Adapter) -> None:
        self.rows = rows
        self.adapter = adapter

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> _Finding:
        try:
            group = self.adapter.encode(self.rows[index])
        except DataError as error:
            return _Finding(problems=error.problems, kind=type(error))
        prompt, answers = group.prompt_ids.numel(), [ids.numel() for ids in group.response_ids]
        units = len(group.pairs) or len(answers)
        return _Finding(
            longest=prompt + max(answers),
            cut=group.cut_responses,
            shrunk=group.shrunk_pictures,
            tokens={
                "plain": len(answers) * prompt + sum(answers),
                "packed": prompt + sum(answers),
            },
            plain=len(answers) * (prompt + max(answers)) / units,
            packed=(prompt + sum(answers)) / units,
        )


def preflight(
    rows: Sequence[PreferenceRow],
    adapter: Adapter,
    *,
    workers: int = 0,
    drop_long: bool = False,
    max_skipped_fraction: float = 0.0,
) -> Preflight:
    """Encodes every row once and counts; tensors are not kept.

    Args:
        rows: All rows of a run.
        adapter: Encodes them.
        workers: Processes that share the work, as for the data loader.
        drop_long: Leave rows out that do not fit.
        max_skipped_fraction: Share of rows that may be left out for their pictures.

    Raises:
        DataError: With every problem found.
    """
    result = Preflight()
    loader = DataLoader(
        _Encoding(rows, adapter), batch_size=None, num_workers=workers, collate_fn=_unchanged
    )
    prompts, unreadable, problems = set(), [], _Problems()
    for number, (row, finding) in enumerate(zip(rows, loader, strict=True)):
        if not finding.problems:
            result.count(row, finding)
            prompts.add((row.messages, _names(row)))
        elif drop_long and finding.kind is RowTooLong:
            result.too_long += 1
            result.left_out.add(number)
        elif max_skipped_fraction and finding.kind is PictureError:
            unreadable += finding.problems
            result.left_out.add(number)
        else:
            problems.add(finding.problems)
    result.prompts = len(prompts)
    if len(result.left_out) - result.too_long > max_skipped_fraction * len(rows):
        problems.add(unreadable)
    problems.raise_any()
    result.unreadable = unreadable
    return result


class _Problems:
    """Keeps the first problems in full and counts the others."""

    def __init__(self) -> None:
        self.shown: list[Problem] = []
        self.hidden = 0

    def add(self, problems: Sequence[Problem]) -> None:
        kept = problems[: max(SHOWN - len(self.shown), 0)]
        self.shown += kept
        self.hidden += len(problems) - len(kept)

    def raise_any(self) -> None:
        if self.hidden:
            remedy = "Repair the ones above first"
            self.shown.append(Problem("data", f"{self.hidden} more problems were found", remedy))
        if self.shown:
            raise DataError(self.shown)


def _names(row: PreferenceRow) -> tuple[str, ...]:
    return tuple(identity(image) for image in row.images)


def _unchanged(finding: Any) -> Any:
    return finding

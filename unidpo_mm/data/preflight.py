"""Reads every row and picture once before training, so that a run never starts on bad data."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import DataLoader, Dataset

from ..adapter import Adapter
from ..errors import DataError, Problem
from ..records import Layout, PreferenceRow

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
        tokens: Layout -> tokens of all rows; ``packed`` stands for ``joined``, too.
        tokens_of_pair: Layout -> most tokens that one pair adds to a batch, likewise.
        problems: What is wrong.
    """

    rows: int = 0
    pairs: int = 0
    responses: int = 0
    images: int = 0
    domains: Counter[str] = field(default_factory=Counter)
    prompts: int = 0
    longest: int = 0
    cut_responses: int = 0
    tokens: Counter[Layout] = field(default_factory=Counter)
    tokens_of_pair: dict[Layout, float] = field(default_factory=lambda: {"plain": 0, "packed": 0})
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class _Finding:
    longest: int = 0
    cut: int = 0
    tokens: dict[Layout, int] = field(default_factory=dict)
    plain: float = 0
    packed: float = 0
    problems: tuple[Problem, ...] = ()


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
            return _Finding(problems=error.problems)
        prompt, answers = group.prompt_ids.numel(), [ids.numel() for ids in group.response_ids]
        units = len(group.pairs) or len(answers)
        return _Finding(
            longest=prompt + max(answers),
            cut=group.cut_responses,
            tokens={
                "plain": len(answers) * prompt + sum(answers),
                "packed": prompt + sum(answers),
            },
            plain=len(answers) * (prompt + max(answers)) / units,
            packed=(prompt + sum(answers)) / units,
        )


def preflight(rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0) -> Preflight:
    """Encodes every row once and counts; tensors are not kept.

    Args:
        rows: All rows of a run.
        adapter: Encodes them.
        workers: Processes that share the work, as for the data loader.

    Raises:
        DataError: With every problem found.
    """
    result = Preflight()
    for row in rows:
        result.rows += 1
        result.pairs += len(row.pairs)
        result.responses += len(row.responses)
        result.images += len(row.images)
        result.domains[row.domain] += 1
    result.prompts = len({(row.messages, _names(row)) for row in rows})
    loader = DataLoader(
        _Encoding(rows, adapter), batch_size=None, num_workers=workers, collate_fn=_unchanged
    )
    hidden = 0
    for finding in loader:
        result.longest = max(result.longest, finding.longest)
        result.cut_responses += finding.cut
        result.tokens.update(finding.tokens)
        most = result.tokens_of_pair
        most["plain"] = max(most["plain"], finding.plain)
        most["packed"] = max(most["packed"], finding.packed)
        kept = finding.problems[: max(SHOWN - len(result.problems), 0)]
        result.problems += kept
        hidden += len(finding.problems) - len(kept)
    if hidden:
        remedy = "Repair the ones above first"
        result.problems.append(Problem("data", f"{hidden} more problems were found", remedy))
    if result.problems:
        raise DataError(result.problems)
    return result


def _names(row: PreferenceRow) -> tuple[str, ...]:
    return tuple(image.describe() for image in row.images)


def _unchanged(finding: Any) -> Any:
    return finding

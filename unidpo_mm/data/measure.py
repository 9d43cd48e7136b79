"""Encode rows and keep their lengths, or the problems of those that cannot be encoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ..adapter import Adapter, encode_checked
from ..errors import DataError, Problem
from ..records import EncodedGroup, Pair, PreferenceRow

__all__ = ["MeasuredRow", "measure_rows"]


@dataclass(frozen=True)
class MeasuredRow:
    """Lengths and counts of an encoded row.

    Attributes:
        prompt: Tokens of the prompt, including images; 0 if the row cannot be encoded.
        responses: Tokens of each response; empty if the row cannot be encoded.
        images: Tokens of images.
        pairs: Number of pairs.
        truncated: Responses truncated to fit `max_length`.
        shrunk: Images scaled down to fit `max_length`.
        identical: Pairs whose responses have the same tokens, for example after truncation.
        problems: Why the row cannot be encoded.
        kind: Class of that error.
    """

    prompt: int = 0
    responses: tuple[int, ...] = ()
    images: int = 0
    pairs: int = 0
    truncated: int = 0
    shrunk: int = 0
    identical: int = 0
    problems: tuple[Problem, ...] = ()
    kind: type[DataError] = DataError

    @property
    def longest(self) -> int:
        """Tokens of the longest plain row, which is the prompt and one response."""
        return self.prompt + max(self.responses)

    @property
    def plain(self) -> int:
        """Tokens of all plain rows, without padding."""
        return len(self.responses) * self.prompt + sum(self.responses)

    @property
    def packed(self) -> int:
        """Tokens of the packed row, in which the responses share the prompt."""
        return self.prompt + sum(self.responses)


def measure_rows(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Encode rows and yield their measurements in order.

    Args:
        rows: The rows.
        adapter: The adapter of the model.
        workers: Number of worker processes.
    """
    encoding = _Encoding(rows, adapter)
    return iter(DataLoader(encoding, batch_size=None, num_workers=workers, collate_fn=_unchanged))


class _Encoding(Dataset[MeasuredRow]):
    def __init__(self, rows: Sequence[PreferenceRow], adapter: Adapter) -> None:
        self.rows, self.adapter = rows, adapter

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> MeasuredRow:
        try:
            group = encode_checked(self.adapter, self.rows[index])
        except DataError as error:
            return MeasuredRow(problems=error.problems, kind=type(error))
        return MeasuredRow(
            prompt=group.prompt_ids.numel(),
            responses=tuple(ids.numel() for ids in group.response_ids),
            images=group.images.tokens,
            pairs=len(group.preferences.pairs),
            truncated=group.cut_responses,
            shrunk=group.images.shrunk,
            identical=sum(_identical(group, pair) for pair in group.preferences.pairs),
        )


def _identical(group: EncodedGroup, pair: Pair) -> bool:
    return torch.equal(group.response_ids[pair.chosen], group.response_ids[pair.rejected])


def _unchanged(measured: Any) -> Any:
    return measured

"""Encodes rows one after the other and keeps how long they are, or why they cannot be encoded."""

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
    """A row as it is encoded, without its tensors.

    Attributes:
        prompt: Tokens of the prompt, images included; 0 where the row cannot be encoded.
        answers: Tokens of each answer; empty likewise.
        images: Tokens of images.
        pairs: Pairs that it makes.
        cut: Answers shortened to fit `max_length`.
        shrunk: Images made smaller for it.
        alike: Pairs whose answers are the same tokens, for example after they were cut.
        problems: Why it cannot be encoded.
        kind: Which error says so.
    """

    prompt: int = 0
    answers: tuple[int, ...] = ()
    images: int = 0
    pairs: int = 0
    cut: int = 0
    shrunk: int = 0
    alike: int = 0
    problems: tuple[Problem, ...] = ()
    kind: type[DataError] = DataError

    @property
    def longest(self) -> int:
        """Tokens of the longest plain row: prompt and one answer."""
        return self.prompt + max(self.answers)

    @property
    def plain(self) -> int:
        """Tokens of all its plain rows, padding left out."""
        return len(self.answers) * self.prompt + sum(self.answers)

    @property
    def packed(self) -> int:
        """Tokens where its answers share the prompt."""
        return self.prompt + sum(self.answers)


def measure_rows(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Yield what each row measures, in order.

    Args:
        rows: The rows.
        adapter: Encodes them.
        workers: Processes that share the work, as for the data loader.
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
            answers=tuple(ids.numel() for ids in group.response_ids),
            images=group.image_tokens,
            pairs=len(group.pairs),
            cut=group.cut_responses,
            shrunk=group.shrunk_images,
            alike=sum(_alike(group, pair) for pair in group.pairs),
        )


def _alike(group: EncodedGroup, pair: Pair) -> bool:
    return torch.equal(group.response_ids[pair.chosen], group.response_ids[pair.rejected])


def _unchanged(measured: Any) -> Any:
    return measured

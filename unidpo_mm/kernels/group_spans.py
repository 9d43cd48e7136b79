"""Where the prompts and responses of a packed batch are.

In packed rows of plain causal layers, this description takes the place of the mask on the way to
the attention function.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["GroupSpan", "are_spans", "group_spans"]


class GroupSpan(NamedTuple):
    """The position of a prompt and its responses in a batch.

    Attributes:
        row: The row of the batch.
        first: Position of the first prompt token.
        unused: Number of prompt tokens, from the first on, whose output is not used.
        prompt: Number of prompt tokens.
        branches: Number of tokens of each response.
    """

    row: int
    first: int
    unused: int
    prompt: int
    branches: tuple[int, ...]

    @property
    def start(self) -> int:
        """Position of the first token of the first response."""
        return self.first + self.prompt

    @property
    def length(self) -> int:
        """Number of tokens of the prompt and all responses."""
        return self.end - self.first

    @property
    def end(self) -> int:
        """Position after the last response."""
        return self.start + sum(self.branches)

    @classmethod
    def of(cls, spans: Tensor) -> list["GroupSpan"]:
        """Return the rows of `group_spans`."""
        return [
            cls(row, first, unused, prompt, tuple(branches))
            for row, first, unused, prompt, *branches in spans.tolist()
        ]

    def as_line(self, width: int) -> list[int]:
        """Return the span as a row of `group_spans` with `width` columns."""
        line = [*self[:4], *self.branches]
        return line + [0] * (width - len(line))


def group_spans(segment: Tensor, row_position: Tensor) -> Tensor:
    """Return where the groups of a packed batch are, as a tensor that can replace a mask.

    Args:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position of each token in its plain row.

    Returns:
        [G, 4 + K] int64 on the CPU: the fields of `GroupSpan`, one column per branch.
    """
    spans = []
    for row, (segments, positions) in enumerate(
        zip(segment.cpu(), row_position.cpu(), strict=True)
    ):
        starts = ((segments == 0) & (positions == 0)).nonzero().flatten().tolist()
        for first, end in pairwise([*starts, segments.numel()]):
            group = segments[first:end]
            prompt, *branches = torch.bincount(group[group >= 0]).tolist()
            spans.append(GroupSpan(row, first, 0, prompt, tuple(branches)))
    width = 4 + max(len(span.branches) for span in spans)
    return torch.tensor([span.as_line(width) for span in spans])


def are_spans(mask: Tensor | None) -> bool:
    """Return whether a layer's mask is `group_spans`: no mask has an integer type."""
    return mask is not None and mask.dtype == torch.int64

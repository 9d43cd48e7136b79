"""Attention over packed rows without a mask of the whole row, for plain causal layers.

    row            p p p p | a a a | b b        prompt, two answers
    prompt         causal over itself
    each answer    over the prompt and, causally, itself

A mask of the whole row costs (P + A + B)^2 scores, most of which are thrown away. In pieces they
are P^2 / 2 for the prompt, by a causal kernel, and R (P + R) for each answer of R tokens, or where
that is less, (P + R)^2 / 2 by a causal kernel that takes the prompt's queries along. Groups that
stand in one row cost nothing beside each other. In a layer whose output is read from the last
prompt token on (`last_layer.py`), the prompt costs P.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GroupSpan", "are_spans", "by_branch", "group_spans"]

Attention = Callable[..., tuple[Tensor, Any]]
"""An attention function as transformers registers them."""


class GroupSpan(NamedTuple):
    """Where a prompt and its answers stand in a batch.

    Attributes:
        row: In which row.
        first: Position of the first prompt token.
        unread: First tokens of the prompt whose output nobody reads.
        prompt: Tokens of the prompt.
        branches: Tokens of each answer.
    """

    row: int
    first: int
    unread: int
    prompt: int
    branches: tuple[int, ...]

    @property
    def start(self) -> int:
        """Position of the first token of the first answer."""
        return self.first + self.prompt

    @property
    def end(self) -> int:
        """Position behind the last answer."""
        return self.start + sum(self.branches)

    @classmethod
    def of(cls, spans: Tensor) -> list["GroupSpan"]:
        """Return the rows of `group_spans`."""
        return [cls(*line[:4], tuple(line[4:])) for line in spans.tolist()]  # type: ignore[call-arg]

    def as_line(self, width: int) -> list[int]:
        """Return the span as a row of `group_spans` that is so wide."""
        line = [*self[:4], *self.branches]
        return line + [0] * (width - len(line))


def group_spans(segment: Tensor, row_position: Tensor) -> Tensor:
    """Return where the groups of a packed batch stand, to stand in for a mask.

    Args:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position in the plain row.

    Returns:
        [G, 4 + K] int64 on the CPU: the fields of `GroupSpan`, with the branches one by one.
    """
    found = []
    for row, (segments, positions) in enumerate(
        zip(segment.cpu(), row_position.cpu(), strict=True)
    ):
        begins = ((segments == 0) & (positions == 0)).nonzero().flatten().tolist()
        for first, end in pairwise([*begins, segments.numel()]):
            own = segments[first:end]
            prompt, *branches = torch.bincount(own[own >= 0]).tolist()
            found.append(GroupSpan(row, first, 0, prompt, tuple(branches)))
    width = 4 + max(len(span.branches) for span in found)
    return torch.tensor([span.as_line(width) for span in found])


def are_spans(mask: Tensor | None) -> bool:
    """Whether what a layer got as its mask is `group_spans`: no real mask is made of numbers."""
    return mask is not None and mask.dtype == torch.int64


def by_branch(attend: Attention) -> Attention:
    """Return an attention function that takes `group_spans` in place of a mask.

    Given any other mask it is `attend` itself.
    """

    def attend_by_branch(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        if attention_mask is None or not are_spans(attention_mask):
            return attend(module, query, key, value, attention_mask, **kwargs)
        spans = GroupSpan.of(attention_mask)
        rows = []
        for row in range(len(query)):
            q, k, v = (tensor[row : row + 1] for tensor in (query, key, value))
            own = [span for span in spans if span.row == row]
            rows.append(_row(q, k, v, own, kwargs.get("scaling")))
        return torch.cat(rows).transpose(1, 2), None

    return attend_by_branch


def _row(
    query: Tensor, key: Tensor, value: Tensor, spans: Sequence[GroupSpan], scale: float | None
) -> Tensor:
    """Attend within one row, [1, H, T, D]; padding and what nobody reads give 0."""
    pieces, done = [], 0
    for span in spans:
        read, start = span.first + span.unread, span.start
        pieces.append(torch.zeros_like(query[:, :, done:read]))
        seen, said = key[:, :, span.first : start], value[:, :, span.first : start]
        pieces.append(_last(query[:, :, read:start], seen, said, scale))
        asked = query[:, :, span.first : span.start]
        for length in filter(None, span.branches):
            own = slice(start, start + length)
            keys = torch.cat([seen, key[:, :, own]], dim=2)
            values = torch.cat([said, value[:, :, own]], dim=2)
            if length > span.prompt:
                whole = torch.cat([asked, query[:, :, own]], dim=2)
                pieces.append(_last(whole, keys, values, scale)[:, :, span.prompt :])
            else:
                pieces.append(_last(query[:, :, own], keys, values, scale))
            start += length
        done = start
    pieces.append(torch.zeros_like(query[:, :, done:]))
    return torch.cat(pieces, dim=2)


def _last(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Attend causally where the queries [1, H, L, D] belong to the last L of the keys.

    Keys and values may have fewer heads, [1, H / G, S, D]; they are never repeated. With a mask
    only some kernels share them, so that there the G heads of a group become queries of one head.
    """
    _, heads, length, width = query.shape
    if length == key.shape[2]:
        return F.scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale, enable_gqa=heads != key.shape[1]
        )
    groups = heads // key.shape[1]
    mask = _causal(length, key.shape[2], str(query.device)).repeat(groups, 1)
    together = query.reshape(1, key.shape[1], groups * length, width)
    found = F.scaled_dot_product_attention(together, key, value, mask, scale=scale)
    return found.reshape(1, heads, length, -1)


@lru_cache(maxsize=32)
def _causal(length: int, keys: int, device: str) -> Tensor:
    """Return [length, keys]: which keys each of the last `length` tokens may see."""
    return torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)

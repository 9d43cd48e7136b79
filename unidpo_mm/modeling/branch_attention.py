"""Attention over packed rows without a mask of the whole row, for plain causal layers.

    row            p p p p | a a a | b b        prompt, two answers
    prompt         causal over itself
    each answer    over the prompt and, causally, itself

A mask of the whole row costs (P + A + B)^2 scores, most of which are thrown away. In pieces they
are P^2 / 2 for the prompt, by a causal kernel, and R (P + R) for each answer of R tokens. In a
layer whose output is read from the last prompt token on (`last_layer.py`), the prompt costs P.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BranchLengths", "are_branch_lengths", "branch_lengths", "by_branch"]

Attention = Callable[..., tuple[Tensor, Any]]
"""An attention function as transformers registers them."""


def branch_lengths(segment: Tensor) -> Tensor:
    """Returns where rows begin and how long their pieces are, to stand in for a mask.

    Args:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.

    Returns:
        [B, 3 + K] int64 on the CPU, see `BranchLengths`.
    """
    segment = segment.cpu()
    pieces = int(segment.max()) + 1
    lengths = torch.stack([(segment == piece).sum(1) for piece in range(pieces)], dim=1)
    before = (segment >= 0).int().argmax(1, keepdim=True)
    return torch.cat([before, torch.zeros_like(before), lengths], dim=1)


def are_branch_lengths(mask: Tensor | None) -> bool:
    """Whether what a layer got as its mask is `branch_lengths`: no real mask is made of numbers."""
    return mask is not None and mask.dtype == torch.int64


class BranchLengths(NamedTuple):
    """One row of `branch_lengths`.

    Attributes:
        before: Padding before the row.
        unread: First tokens of the prompt whose output nobody reads.
        prompt: Tokens of the prompt.
        branches: Tokens of each branch.
    """

    before: int
    unread: int
    prompt: int
    branches: tuple[int, ...]

    @classmethod
    def of_rows(cls, lengths: Tensor) -> list["BranchLengths"]:
        """Returns the rows of a batch's `branch_lengths`."""
        return [cls(b, u, p, tuple(branches)) for b, u, p, *branches in lengths.tolist()]


def by_branch(attend: Attention) -> Attention:
    """Returns an attention function that takes `branch_lengths` in place of a mask.

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
        if attention_mask is None or not are_branch_lengths(attention_mask):
            return attend(module, query, key, value, attention_mask, **kwargs)
        rows = [
            _row(query[n : n + 1], key[n : n + 1], value[n : n + 1], lengths, kwargs.get("scaling"))
            for n, lengths in enumerate(BranchLengths.of_rows(attention_mask))
        ]
        return torch.cat(rows).transpose(1, 2), None

    return attend_by_branch


def _row(
    query: Tensor, key: Tensor, value: Tensor, lengths: BranchLengths, scale: float | None
) -> Tensor:
    """Attends within one row, [1, H, T, D]; padding and what nobody reads give 0."""
    before, unread, prompt, branches = lengths
    first, start = before + unread, before + prompt
    seen, said = key[:, :, before:start], value[:, :, before:start]
    pieces = [
        torch.zeros_like(query[:, :, :first]),
        _last(query[:, :, first:start], seen, said, scale),
    ]
    for length in filter(None, branches):
        own = slice(start, start + length)
        keys = torch.cat([seen, key[:, :, own]], dim=2)
        values = torch.cat([said, value[:, :, own]], dim=2)
        pieces.append(_last(query[:, :, own], keys, values, scale))
        start += length
    pieces.append(torch.zeros_like(query[:, :, start:]))
    return torch.cat(pieces, dim=2)


def _last(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Attends causally where the queries [1, H, L, D] belong to the last L of the keys.

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
    """Returns [length, keys]: which keys each of the last `length` tokens may see."""
    return torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)

"""Attention over packed rows without a mask of the whole row, for plain causal layers.

    row            p p p p | a a a | b b        prompt, two answers
    prompt         causal over itself
    each answer    over the prompt and, causally, itself

A mask of the whole row costs (P + A + B)^2 scores, most of which are thrown away. In pieces they
are P^2 / 2 for the prompt, by a causal kernel, and R (P + R) for each answer of R tokens.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["branch_lengths", "by_branch"]

Attention = Callable[..., tuple[Tensor, Any]]
"""An attention function as transformers registers them."""


def branch_lengths(segment: Tensor) -> Tensor:
    """Returns where rows begin and how long their pieces are, to stand in for a mask.

    Args:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.

    Returns:
        [B, 2 + K] int64 on the CPU: padding before the row, tokens of prompt and of each branch.
    """
    segment = segment.cpu()
    pieces = int(segment.max()) + 1
    lengths = torch.stack([(segment == piece).sum(1) for piece in range(pieces)], dim=1)
    before = (segment >= 0).int().argmax(1, keepdim=True)
    return torch.cat([before, lengths], dim=1)


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
        if attention_mask is None or attention_mask.dtype != torch.int64:
            return attend(module, query, key, value, attention_mask, **kwargs)
        groups = query.shape[1] // key.shape[1]
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
        rows = [
            _row(query[n : n + 1], key[n : n + 1], value[n : n + 1], lengths, kwargs.get("scaling"))
            for n, lengths in enumerate(attention_mask.tolist())
        ]
        return torch.cat(rows).transpose(1, 2), None

    return attend_by_branch


def _row(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float | None
) -> Tensor:
    """Attends within one row, [1, H, T, D]; padding gives 0."""
    before, prompt, *branches = lengths
    start = before + prompt
    seen, said = key[:, :, before:start], value[:, :, before:start]
    pieces = [query[:, :, :before] * 0]
    pieces.append(
        F.scaled_dot_product_attention(
            query[:, :, before:start], seen, said, is_causal=True, scale=scale
        )
    )
    for length in filter(None, branches):
        own = slice(start, start + length)
        pieces.append(
            F.scaled_dot_product_attention(
                query[:, :, own],
                torch.cat([seen, key[:, :, own]], dim=2),
                torch.cat([said, value[:, :, own]], dim=2),
                attn_mask=_after_prompt(prompt, length, str(query.device)),
                scale=scale,
            )
        )
        start += length
    pieces.append(query[:, :, start:] * 0)
    return torch.cat(pieces, dim=2)


@lru_cache(maxsize=256)
def _after_prompt(prompt: int, length: int, device: str) -> Tensor:
    """Returns [length, prompt + length]: the prompt is seen whole, the answer causally."""
    whole = torch.ones(length, prompt + length, dtype=torch.bool, device=device)
    return whole.tril(prompt)

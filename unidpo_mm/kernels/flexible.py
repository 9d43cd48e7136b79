"""Attention with any mask and a cap on the scores, for layers that pieces cannot compute.

Sliding windows and capped scores need a rule per query and key. On a GPU, FlexAttention compiles
the rule into its kernel and skips blocks of keys that no query attends to, so a joined row costs
about as much as its groups. It is compiled once, for all lengths and for training and evaluation
alike; the wrapper of transformers compiles it again whenever a model switches between the two.

FlexAttention has no backward pass on a CPU. There, a mask of the whole row and plain products
compute the same, and are the reference.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from .branch_attention import Attention, in_one_format

__all__ = ["by_flex_attention", "flex_mask"]

UNSUPPORTED = ("s_aux", "position_bias")
"""Arguments of attention functions that are not supported here."""


def flex_mask(visible: Callable[..., Tensor], rows: int, width: int, device: torch.device) -> Any:
    """Return the blocks of keys that queries attend to, for rows of a packed batch.

    Args:
        visible: (row, head, query, key) indices -> whether the query may attend to the key.
        rows: B, the number of rows.
        width: T, the number of positions of a row.
        device: The device of the batch.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    return create_block_mask(visible, rows, None, width, width, device=str(device))


def by_flex_attention(attend: Attention) -> Attention:
    """Return an attention function that takes blocks of keys, or a mask [B, 1, T, T].

    It calls `attend` for everything else, such as rows on a CPU that are not packed.
    """

    def attend_flexibly(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, Any]:
        masked = isinstance(attention_mask, Tensor) and attention_mask.dtype == torch.bool
        extra = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
        if extra or not (masked or query.is_cuda):
            if masked:
                raise ValueError(f"packed rows do not support {', '.join(extra)}")
            return attend(module, query, key, value, attention_mask, **kwargs)
        compute = _masked if masked else _flex
        scale, cap = kwargs.get("scaling"), kwargs.get("softcap")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        output = compute((query, key, value), attention_mask, scale, cap)
        return output.transpose(1, 2).contiguous(), None

    return attend_flexibly


Tensors = tuple[Tensor, Tensor, Tensor]
"""Queries [B, H, T, D], keys and values [B, K, T, D]; H is a multiple of K."""


def _flex(tensors: Tensors, mask: Any, scale: float, cap: float | None) -> Tensor:
    query, key, value = in_one_format(*tensors)
    output: Tensor = _compiled()(
        *(query, key, value),
        score_mod=None if cap is None else _capped(cap),
        block_mask=mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output


def _masked(tensors: Tensors, mask: Tensor, scale: float, cap: float | None) -> Tensor:
    """Return what `_flex` returns, by plain products; the scores of a group of heads share keys."""
    query, key, value = tensors
    grouped = query.unflatten(1, (key.shape[1], -1))
    scores = (grouped * scale) @ key.unsqueeze(2).transpose(-1, -2)
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    scores = scores.masked_fill(~mask.unsqueeze(1), torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    attended: Tensor = (weights @ value.unsqueeze(2)).flatten(1, 2)
    return attended


@cache
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=True)
    return compiled


@cache
def _capped(cap: float) -> Callable[..., Tensor]:
    """Return a change of the scores; the same function for the same cap, or it would recompile."""

    def capped(score: Tensor, row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.tanh(score / cap) * cap

    return capped

"""Fused attention of a simulated CUDA device, computed on the CPU and counted as its kernels."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["EMULATED", "FusedAttention", "attend"]

attend = F.scaled_dot_product_attention
"""Attention of real devices."""

BACKWARD_KERNELS = 3
"""Kernels of a backward pass: the products of gradient and output, and two of the gradients."""


class FusedAttention(torch.autograd.Function):
    """`scaled_dot_product_attention` on a simulated device.

    The dispatcher would choose a kernel of the device, which does not exist, so it never sees this
    operation.
    """

    @staticmethod
    def forward(
        ctx: Any,
        device: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> Tensor:
        """Return the output on the device, laid out as fused kernels do, [B, L, H, D]."""
        ctx.device, ctx.options = device, options
        ctx.save_for_backward(query, key, value, mask)
        device.launch("scaled_dot_product_attention")
        output = attend(*_on_host(query, key, value), attn_mask=_on_host(mask)[0], **options)
        return device.wrap(output.transpose(1, 2).contiguous().transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of query, key and value."""
        query, key, value, mask = _on_host(*ctx.saved_tensors)
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_() for tensor in (query, key, value)]
            output = attend(*leaves, attn_mask=mask, **ctx.options)
            gradients = torch.autograd.grad(output, leaves, _on_host(gradient)[0])
        ctx.device.launch("scaled_dot_product_attention backward", BACKWARD_KERNELS)
        return (None, *map(ctx.device.wrap, gradients), None, None)


def _on_host(*tensors: Tensor | None) -> list[Any]:
    """Return the numbers of tensors of the device."""
    return [getattr(tensor, "numbers", tensor) for tensor in tensors]


def flash_forward(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    max_queries: int,
    max_keys: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    """Return what `aten._flash_attention_forward` returns for sequences of different lengths."""
    output = torch.empty_like(queries)
    lse = torch.empty(queries.shape[1], len(queries))
    for here, there in _sequences(query_ends, key_ends):
        scores = _scores(queries[here], keys[there], causal, scale)
        repeated = _repeated(values[there], queries.shape[1])
        output[here] = (scores.softmax(-1) @ repeated).transpose(0, 1).to(output.dtype)
        lse[:, here] = scores.logsumexp(-1)
    return output, lse, torch.zeros(2, dtype=torch.uint64), torch.empty(0), torch.empty(0)


def flash_backward(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    output: Tensor,
    lse: Tensor,
    query_ends: Tensor,
    key_ends: Tensor,
    max_queries: int,
    max_keys: int,
    dropout: float,
    causal: bool,
    state: Tensor,
    unused: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    """Return what `aten._flash_attention_backward` returns: it uses `output` and `lse` as given.

    They may belong to attention over more keys than these.
    """
    inputs = (queries, keys, values)
    gradients = tuple(torch.zeros_like(tensor) for tensor in inputs)
    mean = (gradient.float() * output.float()).sum(-1).t()  # [H, N]
    for here, there in _sequences(query_ends, key_ends):
        leaves = [
            tensor[place].float().requires_grad_()
            for tensor, place in zip(inputs, (here, there, there), strict=True)
        ]
        with torch.enable_grad():
            scores = _scores(leaves[0], leaves[1], causal, scale)
            repeated = _repeated(leaves[2], queries.shape[1])
        slope = gradient[here].float().transpose(0, 1)
        weights = (scores.detach() - lse[:, here, None]).exp()
        to_scores = weights * (slope @ repeated.detach().transpose(1, 2) - mean[:, here, None])
        pulled = torch.autograd.grad(
            (scores, repeated), leaves, (to_scores, weights.transpose(1, 2) @ slope)
        )
        for total, place, part in zip(gradients, (here, there, there), pulled, strict=True):
            total[place] = part.to(total.dtype)
    return gradients


EMULATED = {
    "_flash_attention_forward": (flash_forward, 1),
    "_flash_attention_backward": (flash_backward, BACKWARD_KERNELS),
}
"""Operations that only GPUs have, computed on the CPU: name -> function and number of kernels."""


def _sequences(query_ends: Tensor, key_ends: Tensor) -> Iterator[tuple[slice, slice]]:
    pairs = zip(pairwise(query_ends.tolist()), pairwise(key_ends.tolist()), strict=True)
    return ((slice(*queries), slice(*keys)) for queries, keys in pairs)


def _scores(queries: Tensor, keys: Tensor, causal: bool, scale: float) -> Tensor:
    """Return the scores [H, L, S] of a sequence."""
    repeated = _repeated(keys, queries.shape[1])
    scores = queries.float().transpose(0, 1) @ repeated.transpose(1, 2) * scale
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf) if causal else scores


def _repeated(tensor: Tensor, heads: int) -> Tensor:
    """Return keys or values [S, K, D] as [H, S, D], one for each head of the queries."""
    return tensor.float().repeat_interleave(heads // tensor.shape[1], 1).transpose(0, 1)

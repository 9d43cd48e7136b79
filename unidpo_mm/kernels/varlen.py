"""Attention over many sequences of different lengths, in one call of a kernel.

The tokens of all sequences are concatenated, and *boundaries* say where each sequence begins and
ends: sequences of 3 and 5 tokens have the boundaries 0, 3, 8. Nothing is padded and no mask exists.
A kernel returns its output together with the log-sum-exp of each query's scores, by which the
outputs of two calls over different keys can be merged (`two_calls.py`), and its backward pass takes
both as arguments.

`PLAIN` is the reference in plain PyTorch, for any device and number format. The others start one
kernel each: that of the CUDA build of PyTorch, or one of the package flash-attn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

__all__ = ["FLASH_2", "FLASH_3", "PLAIN", "TORCH", "Inputs", "Sequences", "VarlenKernel"]


class Inputs(NamedTuple):
    """The tokens of all sequences.

    Attributes:
        queries: [N, H, D]; H is a multiple of K.
        keys: [M, K, D].
        values: [M, K, D].
    """

    queries: Tensor
    keys: Tensor
    values: Tensor


class Sequences(NamedTuple):
    """The sequences of a call; the i-th one of the queries attends to the i-th one of the keys.

    Attributes:
        queries: [S + 1] int32, the boundaries of the queries.
        keys: [S + 1] int32, the boundaries of keys and values.
        max_queries: Number of queries of the longest sequence.
        max_keys: Number of keys of the longest sequence.
        causal: Whether a query attends to keys up to its own position only. Queries and keys then
            have the same lengths.
    """

    queries: Tensor
    keys: Tensor
    max_queries: int
    max_keys: int
    causal: bool


Forward = Callable[[Inputs, Sequences, float], tuple[Tensor, Tensor]]
"""(inputs, sequences, factor of the scores) -> (output [N, H, D], log-sum-exp [H, N])."""

Backward = Callable[[Tensor, Inputs, Tensor, Tensor, Sequences, float], Inputs]
"""(gradient of the output, inputs, output, log-sum-exp, sequences, factor of the scores) ->
gradients of the inputs."""


@dataclass(frozen=True)
class VarlenKernel:
    """A kernel for sequences of different lengths.

    Attributes:
        name: Its name in messages.
        forward: See `Forward`.
        backward: See `Backward`.
        module: The Python module that it needs besides PyTorch; empty if PyTorch is enough.
    """

    name: str
    forward: Forward
    backward: Backward
    module: str = ""


# ---- the reference, in plain PyTorch ----


def _each(sequences: Sequences) -> Iterator[tuple[slice, slice]]:
    """Yield the positions of the queries and of the keys of each sequence."""
    pairs = zip(*(pairwise(ends.tolist()) for ends in sequences[:2]), strict=True)
    return ((slice(*queries), slice(*keys)) for queries, keys in pairs)


def _grouped(tensor: Tensor, key_heads: int) -> Tensor:
    """Return [L, H, D] as [K, H / K, L, D]: each head of the keys has H / K heads of queries."""
    grouped: Tensor = tensor.unflatten(1, (key_heads, -1)).permute(1, 2, 0, 3)
    return grouped


def _ungrouped(tensor: Tensor) -> Tensor:
    return tensor.permute(2, 0, 1, 3).flatten(1, 2)


def _scores(queries: Tensor, keys: Tensor, sequences: Sequences, scale: float) -> Tensor:
    """Return the scores [K, H / K, L, S] of one sequence."""
    scores = _grouped(queries, keys.shape[1]) @ keys.permute(1, 2, 0)[:, None] * scale
    if sequences.causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores


def _in_full(*tensors: Tensor) -> list[Tensor]:
    return [t if t.dtype == torch.float64 else t.float() for t in tensors]


def _plain_forward(inputs: Inputs, sequences: Sequences, scale: float) -> tuple[Tensor, Tensor]:
    output = torch.empty_like(inputs.queries)
    queries, keys, values = _in_full(*inputs)
    lse = queries.new_empty(queries.shape[1], len(queries))
    with torch.autocast(queries.device.type, enabled=False):
        for here, there in _each(sequences):
            scores = _scores(queries[here], keys[there], sequences, scale)
            attended = scores.softmax(-1) @ values[there].transpose(0, 1)[:, None]
            output[here] = _ungrouped(attended).to(output.dtype)
            lse[:, here] = scores.logsumexp(-1).flatten(0, 1)
    return output, lse


def _plain_backward(
    gradient: Tensor,
    inputs: Inputs,
    output: Tensor,
    lse: Tensor,
    sequences: Sequences,
    scale: float,
) -> Inputs:
    results = Inputs(*(torch.zeros_like(tensor) for tensor in inputs))
    gradient, output, queries, keys, values = _in_full(gradient, output, *inputs)
    key_heads = keys.shape[1]
    with torch.autocast(queries.device.type, enabled=False):
        for here, there in _each(sequences):
            scores = _scores(queries[here], keys[there], sequences, scale)
            weights = (scores - lse[:, here].unflatten(0, (key_heads, -1))[..., None]).exp()
            slope = _grouped(gradient[here], key_heads)
            mean = (slope * _grouped(output[here], key_heads)).sum(-1, keepdim=True)
            inner = slope @ values[there].permute(1, 2, 0)[:, None]
            scores_slope = weights * (inner - mean) * scale
            to_queries = scores_slope @ keys[there].transpose(0, 1)[:, None]
            to_keys = scores_slope.transpose(-1, -2) @ _grouped(queries[here], key_heads)
            to_values = weights.transpose(-1, -2) @ slope
            results.queries[here] = _ungrouped(to_queries).to(results.queries.dtype)
            results.keys[there] = to_keys.sum(1).transpose(0, 1).to(results.keys.dtype)
            results.values[there] = to_values.sum(1).transpose(0, 1).to(results.values.dtype)
    return results


PLAIN = VarlenKernel("plain PyTorch", _plain_forward, _plain_backward)


# ---- the kernel of the CUDA build of PyTorch ----


def _torch_forward(inputs: Inputs, sequences: Sequences, scale: float) -> tuple[Tensor, Tensor]:
    output, lse, *_ = torch.ops.aten._flash_attention_forward(
        *inputs, *sequences[:4], 0.0, sequences.causal, False, scale=scale
    )
    return output, lse


def _torch_backward(
    gradient: Tensor,
    inputs: Inputs,
    output: Tensor,
    lse: Tensor,
    sequences: Sequences,
    scale: float,
) -> Inputs:
    state = torch.zeros(2, dtype=torch.uint64, device=lse.device)  # of dropout, which is off
    unused = torch.empty(0, device=lse.device)
    gradients = torch.ops.aten._flash_attention_backward(
        *(gradient, *inputs, output, lse),
        *sequences[:4],
        *(0.0, sequences.causal, state, unused),
        scale=scale,
    )
    return Inputs(*gradients)


TORCH = VarlenKernel("flash attention of PyTorch", _torch_forward, _torch_backward)


# ---- the kernels of the package flash-attn ----


def _lengths(sequences: Sequences) -> dict[str, Any]:
    return {
        "cu_seqlens_q": sequences.queries,
        "cu_seqlens_k": sequences.keys,
        "max_seqlen_q": sequences.max_queries,
        "max_seqlen_k": sequences.max_keys,
    }


def _flash_2() -> Any:
    from flash_attn import flash_attn_interface

    return flash_attn_interface


def _flash_2_forward(inputs: Inputs, sequences: Sequences, scale: float) -> tuple[Tensor, Tensor]:
    package = _flash_2()
    settings = {"dropout_p": 0.0, "softmax_scale": scale, "causal": sequences.causal}
    output, lse, *_ = package._flash_attn_varlen_forward(*inputs, **_lengths(sequences), **settings)
    return output, lse


def _flash_2_backward(
    gradient: Tensor,
    inputs: Inputs,
    output: Tensor,
    lse: Tensor,
    sequences: Sequences,
    scale: float,
) -> Inputs:
    package = _flash_2()
    results = Inputs(*(torch.empty_like(tensor) for tensor in inputs))
    package._flash_attn_varlen_backward(
        *(gradient, *inputs, output, lse, *results),
        **_lengths(sequences),
        dropout_p=0.0,
        softmax_scale=scale,
        causal=sequences.causal,
        window_size_left=-1,
        window_size_right=-1,
        softcap=0.0,
        alibi_slopes=None,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return results


FLASH_2 = VarlenKernel(
    "flash-attn 2", _flash_2_forward, _flash_2_backward, "flash_attn.flash_attn_interface"
)


def _flash_3() -> Any:
    import flash_attn_interface

    return flash_attn_interface


def _flash_3_forward(inputs: Inputs, sequences: Sequences, scale: float) -> tuple[Tensor, Tensor]:
    package = _flash_3()
    settings = {"softmax_scale": scale, "causal": sequences.causal}
    output, lse, *_ = package._flash_attn_forward(*inputs, **_lengths(sequences), **settings)
    return output, lse


def _flash_3_backward(
    gradient: Tensor,
    inputs: Inputs,
    output: Tensor,
    lse: Tensor,
    sequences: Sequences,
    scale: float,
) -> Inputs:
    package = _flash_3()
    results = Inputs(*(torch.empty_like(tensor) for tensor in inputs))
    package._flash_attn_backward(
        *(gradient, *inputs, output, lse),
        **_lengths(sequences),
        dq=results.queries,
        dk=results.keys,
        dv=results.values,
        softmax_scale=scale,
        is_causal=sequences.causal,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )
    return results


FLASH_3 = VarlenKernel("flash-attn 3", _flash_3_forward, _flash_3_backward, "flash_attn_interface")

"""Attention over rows in which several responses share one prompt, computed piece by piece.

A packed row holds a prompt and its responses, one *branch* per response. Every response attends to
the prompt and to itself, never to another response:

    row            p p p p | a a a | b b        a prompt and two responses
    prompt         attends causally to itself
    each response  attends to the prompt and, causally, to itself

One mask for the whole row would compute (P + A + B)^2 attention scores and discard most of them. In
pieces there are P^2 / 2 for the prompt, with a causal kernel, and R (P + R) for a response of R
tokens or, if that is less, (P + R)^2 / 2 with a causal kernel that includes the queries of the
prompt. Several groups in one row do not attend to each other and cost nothing extra. In the last
layer only the output from the last prompt token on is used (`last_layer.py`), so there the prompt
costs P.

Short groups are computed together instead, see `short_groups.py`. On GPUs, where starting many
small kernels takes longer than running them, a layer takes two calls instead, see `two_calls.py`;
`backends.py` chooses.

This works for layers whose mask is plain causal. `group_spans` describes the groups; it takes the
place of the mask on the way to the attention function.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .backends import varlen_kernel
from .group_spans import GroupSpan, are_spans
from .short_groups import SHORT, attend_together, used_positions
from .two_calls import attend_in_two_calls
from .varlen import Inputs

__all__ = ["Attention", "by_branch", "in_one_format"]

Attention = Callable[..., tuple[Tensor, Any]]
"""An attention function as transformers registers them."""

UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""Arguments of attention functions that change the scores in a way that pieces do not."""


def by_branch(attend: Attention, name: str) -> Attention:
    """Return an attention function that also accepts `group_spans` as its mask.

    With any other mask it is `attend`, which is registered as `name`. Its output is as wide as the
    values, which may be narrower than queries and keys, as in multi-head latent attention. At
    padding and unused prompt positions it has no meaning, but it is finite.
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
        if extra := [name for name in UNSUPPORTED if kwargs.get(name) is not None]:
            raise ValueError(f"attention in pieces does not support {', '.join(extra)}")
        scale = kwargs.get("scaling")
        rows, heads, width, _ = query.shape
        spans = GroupSpan.of(attention_mask)
        query, key, value = in_one_format(query, key, value)
        kernel = varlen_kernel(name, query, key, value)
        if kernel is not None:
            tokens = Inputs(*(t.transpose(1, 2).flatten(0, 1) for t in (query, key, value)))
            output = attend_in_two_calls(tokens, spans, width, scale, kernel)
            return output.unflatten(0, (rows, width)), None
        short = [span for span in spans if span.length <= SHORT]
        long = [span for span in spans if span.length > SHORT]
        outputs = []
        if short:
            q, k, v = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
            outputs.append(attend_together(q, k, v, short, width, scale))
        for span in long:
            row, positions = slice(span.row, span.row + 1), slice(span.first, span.end)
            q, k, v = (tensor[row, :, positions] for tensor in (query, key, value))
            outputs.append(_attend_in_pieces(q, k, v, span, scale)[0].transpose(0, 1))
        used = used_positions([*short, *long], width).to(query.device, non_blocking=True)
        full = value.new_zeros(rows * width, heads, value.shape[-1])
        return full.index_copy(0, used, torch.cat(outputs)).unflatten(0, (rows, width)), None

    return attend_by_branch


def in_one_format(*tensors: Tensor) -> list[Tensor]:
    """Return tensors in the number format that attention computes in under autocast.

    Rotary embeddings may return float32 for queries and keys and leave the values in half
    precision. `scaled_dot_product_attention` converts them itself; other kernels do not.
    """
    kind = tensors[0].device.type
    if kind != "cuda" or not torch.is_autocast_enabled(kind):
        return [*tensors]
    dtype = torch.get_autocast_dtype(kind)
    return [t.to(dtype) if t.dtype == torch.float32 else t for t in tensors]


def _attend_in_pieces(
    queries: Tensor, keys: Tensor, values: Tensor, span: GroupSpan, scale: float | None
) -> Tensor:
    """Attend within one group, [1, H, L, D]; return the output from the first used position on."""
    lengths = [span.prompt, *span.branches]
    # One split of a tensor has one gradient; a slice each would have one as long as the group
    prompt, *branches = zip(
        *(tensor.split(lengths, dim=2) for tensor in (queries, keys, values)), strict=True
    )
    prompt_queries, prompt_keys, prompt_values = prompt
    used = prompt_queries[:, :, span.unused :]
    outputs = [_attend_causally(used, prompt_keys, prompt_values, scale)]
    for branch_queries, branch_keys, branch_values in branches:
        length = branch_queries.shape[2]
        all_keys = torch.cat([prompt_keys, branch_keys], dim=2)
        all_values = torch.cat([prompt_values, branch_values], dim=2)
        if length > span.prompt:
            all_queries = torch.cat([prompt_queries, branch_queries], dim=2)
            output = _attend_causally(all_queries, all_keys, all_values, scale)
            outputs.append(output[:, :, span.prompt :])
        elif length:
            outputs.append(_attend_causally(branch_queries, all_keys, all_values, scale))
    return torch.cat(outputs, dim=2)


def _attend_causally(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None) -> Tensor:
    """Attend causally from the last L positions, [1, H, L, D], to all S positions of the keys.

    Keys and values may have fewer heads, [1, H / G, S, D], and are never repeated. Only some
    kernels share them if there is a mask, so then the G heads of a group become queries of one
    head.
    """
    _, heads, length, width = queries.shape
    if length == keys.shape[2]:
        return F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, scale=scale, enable_gqa=heads != keys.shape[1]
        )
    groups = heads // keys.shape[1]
    mask = _causal_mask(length, keys.shape[2], str(queries.device)).repeat(groups, 1)
    grouped = queries.reshape(1, keys.shape[1], groups * length, width)
    output = F.scaled_dot_product_attention(grouped, keys, values, mask, scale=scale)
    return output.reshape(1, heads, length, -1)


@lru_cache(maxsize=32)
def _causal_mask(length: int, keys: int, device: str) -> Tensor:
    """Return [length, keys]: which keys each of the last `length` tokens may attend to."""
    return torch.ones(length, keys, dtype=torch.bool, device=device).tril(keys - length)

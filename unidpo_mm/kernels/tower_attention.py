"""Attention of vision towers that put all images of a batch into one row.

Such a tower attends within each image, or within each window of an image. If flash attention is
requested, it passes the boundaries of the images to one call; otherwise it computes one image after
another and waits for the GPU in every layer, to learn their sizes. Here it gets the one call, also
if the model uses `scaled_dot_product_attention` elsewhere and no package for flash attention is
installed. On a CPU, or in float32, one image is computed after another.
"""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from .backends import varlen_kernel
from .branch_attention import in_one_format
from .varlen import Inputs, Sequences, VarlenKernel

__all__ = ["attend_within_images", "use_one_call"]

NAME = "unidpo_flash"
"""The registered name; by the word in it, towers recognize that it takes boundaries."""

BOUNDARIES = "cu_seqlens"
"""The argument of a tower's attention modules that holds the boundaries."""


def use_one_call(model: nn.Module) -> None:
    """Let the vision towers of a transformers model compute the attention of all images at once.

    Towers with another attention implementation than `sdpa` are not changed.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) != "sdpa":
            continue
        if BOUNDARIES in inspect.signature(module.forward).parameters:
            ALL_ATTENTION_FUNCTIONS.register(NAME, attend_within_images)
            config._attn_implementation = NAME


def attend_within_images(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend within each image, as an attention function of transformers.

    Args:
        module: The attention module.
        query: [1, H, N, D], all images of a batch.
        key: [1, H, N, D].
        value: [1, H, N, D].
        attention_mask: None.
        scaling: The factor of the scores; `None` for 1 / sqrt(D).
        cu_seq_lens_q: The boundaries of the images.
        max_length_q: Number of patches of the largest image.
        **kwargs: Ignored, such as the same boundaries for the keys.
    """
    query, key, value = in_one_format(query, key, value)
    kernel = varlen_kernel("sdpa", query, key, value)
    if kernel is None:
        lengths = cu_seq_lens_q.diff().tolist()
        images = zip(*(t.split(lengths, dim=2) for t in (query, key, value)), strict=True)
        parts = [
            F.scaled_dot_product_attention(queries, keys, values, scale=scaling)
            for queries, keys, values in images
        ]
        return torch.cat(parts, dim=2).transpose(1, 2), None
    ends = cu_seq_lens_q.int()
    sequences = Sequences(ends, ends, int(max_length_q), int(max_length_q), causal=False)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    tokens = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    output: Tensor = _OneCall.apply(sequences, scaling, kernel, *tokens)
    return output.unsqueeze(0), None


class _OneCall(torch.autograd.Function):
    """One call of a variable-length kernel."""

    @staticmethod
    def forward(
        ctx: Any, sequences: Sequences, scale: float, kernel: VarlenKernel, *tokens: Tensor
    ) -> Tensor:
        inputs = Inputs(*tokens)
        output, lse = kernel.forward(inputs, sequences, scale)
        ctx.save_for_backward(*inputs, output, lse)
        ctx.call = sequences, scale, kernel
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        *tokens, output, lse = ctx.saved_tensors
        sequences, scale, kernel = ctx.call
        inputs = Inputs(*tokens)
        results = kernel.backward(gradient.contiguous(), inputs, output, lse, sequences, scale)
        return (None, None, None, *results)

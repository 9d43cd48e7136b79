"""The log-prob head: log-probs of response tokens without the logits of all positions.

Preference losses need the log-prob of each response token, a single number per position, while the
output head computes a logit for every token of the vocabulary. The logits of a batch, [B, T, V],
are often its largest tensor. Here hidden states of the response positions go through the head in
chunks, so that only [chunk, V] logits exist at a time, and none are kept for the backward pass.
On a GPU, a chunk is as large as a gigabyte of logits: few large products keep it busy. This module
imports torch alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ..records import SequenceLogps, Targets

__all__ = [
    "CHUNK_SIZE",
    "LogitTransform",
    "chunk_count",
    "chunk_positions",
    "sequence_logps",
    "token_logps",
]

CHUNK_BYTES = 2**30
"""Bytes of the float32 logits of a chunk on a GPU."""

CHUNK_SIZE = 512
"""Positions of a chunk elsewhere: on a CPU, larger chunks are not faster."""


def chunk_positions(vocabulary: int) -> int:
    """Return the number of positions whose logits exist at a time on a GPU.

    Args:
        vocabulary: Number of logits of a position.
    """
    positions = CHUNK_BYTES // (4 * vocabulary)
    return max(positions // 64 * 64, 64)  # products are fastest for multiples of 64


def chunk_count(positions: int, chunk_size: int) -> int:
    """Return the number of calls of the head for a number of positions, at least one."""
    return max(-(-positions // chunk_size), 1)


@dataclass(frozen=True)
class LogitTransform:
    """Transformations of the logits between output head and softmax.

    Attributes:
        scale: Factor on the logits.
        softcap: Bound of a smooth cap, `cap * tanh(logits / cap)`; `None` for no cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the transformed logits in the same shape."""
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


def token_logps(
    hidden_MD: Tensor,
    target_ids_M: Tensor,
    head: Callable[[Tensor], Tensor],
    *,
    transform: LogitTransform | None = None,
    chunk_size: int = CHUNK_SIZE,
    min_chunks: int = 0,
) -> Tensor:
    """Return the log-prob of each target token under the hidden state that predicts it.

    No logits are kept for the backward pass. If the head is frozen, the gradient of the hidden
    states is computed together with the log-probs, at the cost of two products with the head's
    weights; if it trains, the logits of a chunk are computed again, at the cost of four.

    Args:
        hidden_MD: Hidden states of the predicting positions, contiguous, [M, D].
        target_ids_M: The predicted tokens, [M].
        head: The model's output head, [*, D] -> [*, V].
        transform: What the model does to its logits; `None` for nothing.
        chunk_size: Number of positions whose logits exist at a time.
        min_chunks: Minimum number of calls of the head; those that are not needed get no positions.
            Processes that gather the head's weights for every call need the same number of calls.

    Returns:
        [M] in float32, or float64 if the head computes in float64.
    """
    transform = transform or LogitTransform()

    def chunk_logits(hidden: Tensor) -> Tensor:
        logits = head(hidden)
        return transform(logits if logits.dtype == torch.float64 else logits.float())

    def chunk_logps(hidden: Tensor, target_ids: Tensor) -> Tensor:
        return _select(F.log_softmax(chunk_logits(hidden), dim=-1), target_ids)

    if not torch.is_grad_enabled():
        compute = chunk_logps
    elif _trains(head, hidden_MD):
        compute = partial(checkpoint, chunk_logps, use_reentrant=False)
    else:
        compute = partial(_FrozenHeadLogps.apply, chunk_logits)
    chunks = zip(hidden_MD.split(chunk_size), target_ids_M.split(chunk_size), strict=True)
    logps = [compute(hidden, target_ids) for hidden, target_ids in chunks]
    for _ in range(len(logps), min_chunks):
        logps.append(compute(hidden_MD[:0], target_ids_M[:0]))
    return torch.cat(logps)


def _select(logps_CV: Tensor, target_ids_C: Tensor) -> Tensor:
    return logps_CV.gather(-1, target_ids_C.unsqueeze(-1)).squeeze(-1)


def _trains(head: Callable[[Tensor], Tensor], hidden_MD: Tensor) -> bool:
    """Return whether the head itself needs gradients.

    A head that hides its weights is run on one position. For others this would read all weights in
    vain, and gather them if they are sharded.
    """
    weights = list(head.parameters()) if isinstance(head, nn.Module) else []
    if weights:
        return any(weight.requires_grad for weight in weights)
    return head(hidden_MD[:1].detach()).requires_grad


class _FrozenHeadLogps(torch.autograd.Function):
    """Log-probs under a frozen head, whose gradient is computed in the forward pass.

    Each log-prob depends on one hidden state, so the gradient of their sum holds the gradient of
    each, [M, D], and the backward pass only scales it. The gradient of a log-prob with respect to
    the logits is the one-hot vector of the target minus the probabilities; it reuses the memory of
    the log-probs.
    """

    @staticmethod
    def forward(
        ctx: Any, chunk_logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            logits = chunk_logits(leaf)
        all_logps = F.log_softmax(logits.detach(), dim=-1)
        logps = _select(all_logps, targets)
        logits_gradient = all_logps.exp_().neg_()
        logits_gradient[torch.arange(len(targets), device=targets.device), targets] += 1
        (gradient,) = torch.autograd.grad(logits, leaf, logits_gradient)
        ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return None, (gradient * grad.unsqueeze(-1)).to(gradient.dtype), None


def sequence_logps(
    token_logps_M: Tensor, targets: Targets, *, tokens: bool = False
) -> SequenceLogps:
    """Sum token log-probs per response.

    The sums are in float64, because a float32 sum over hundreds of tokens moves the loss in its
    fourth digit; they are in float32 only on devices without float64.

    Args:
        token_logps_M: [M], in the order of the targets.
        targets: The targets of the batch.
        tokens: Whether to return the log-prob of each token, too.
    """
    dtype = torch.float32 if token_logps_M.device.type == "mps" else torch.float64
    sums = torch.zeros(len(targets.lengths), dtype=dtype, device=token_logps_M.device)
    sums = sums.index_add(0, targets.response, token_logps_M.to(dtype))
    each = _by_response(token_logps_M.to(dtype), targets) if tokens else None
    return SequenceLogps(sums, targets.lengths.to(dtype), targets.row_ids, each)


def _by_response(token_logps_M: Tensor, targets: Targets) -> Tensor:
    """Return token log-probs as [N, T], with zeros after the last token of a response."""
    order = targets.response.argsort(stable=True)
    response = targets.response[order]
    start = targets.lengths.cumsum(0) - targets.lengths
    place = torch.arange(len(order), device=order.device) - start[response]
    table = token_logps_M.new_zeros(len(targets.lengths), max(targets.sizes, default=0))
    return table.index_put((response, place), token_logps_M[order])

"""Log-probabilities of response tokens, in chunks, and their sums in float64.

Logits exist for one chunk of response positions at a time, [chunk, V]; never [B, T, V]. This module
imports torch alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ..records import GroupBatch, SequenceLogps

__all__ = ["LogitTransform", "sequence_logps", "token_logps"]


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to its logits between head and softmax.

    Attributes:
        scale: Factor on the logits.
        softcap: Bound of a smooth cap, `cap * tanh(logits / cap)`; None for no cap.
    """

    scale: float = 1.0
    softcap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return the transformed logits, same shape."""
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
    chunk_size: int = 512,
) -> Tensor:
    """Return the log-probability of each target under the hidden state that predicts it.

    Logits are never kept for the backward pass. Where the head does not train, the gradient of the
    hidden states is formed with the log-probabilities, at two products with the head's weights;
    where it trains, the logits of a chunk are computed again, at four.

    Args:
        hidden_MD: Hidden states of the predicting positions, contiguous, [M, D].
        target_ids_M: The tokens predicted, [M].
        head: The model's output head, [*, D] -> [*, V].
        transform: What the model does to its logits; None for nothing.
        chunk_size: Positions whose logits exist at a time.

    Returns:
        [M] in float32, or float64 where the head computes in float64.
    """
    transform = transform or LogitTransform()

    def chunk_logits(hidden: Tensor) -> Tensor:
        return transform(_at_least_float32(head(hidden)))

    def chunk_logps(hidden: Tensor, target_ids: Tensor) -> Tensor:
        return _picked(F.log_softmax(chunk_logits(hidden), dim=-1), target_ids)

    if not torch.is_grad_enabled():
        scored = chunk_logps
    elif _trains(head, hidden_MD):
        scored = partial(checkpoint, chunk_logps, use_reentrant=False)
    else:
        scored = partial(_UnderFrozenHead.apply, chunk_logits)
    chunks = zip(hidden_MD.split(chunk_size), target_ids_M.split(chunk_size), strict=True)
    return torch.cat([scored(hidden, target_ids) for hidden, target_ids in chunks])


def _picked(logps_CV: Tensor, target_ids_C: Tensor) -> Tensor:
    return logps_CV.gather(-1, target_ids_C.unsqueeze(-1)).squeeze(-1)


def _trains(head: Callable[[Tensor], Tensor], hidden_MD: Tensor) -> bool:
    """Whether gradients of the head itself are wanted; autograd knows, however it is wrapped."""
    return head(hidden_MD[:1].detach()).requires_grad


class _UnderFrozenHead(torch.autograd.Function):
    """Log-probabilities whose gradient is ready with them.

    Each depends on its own hidden state alone, so the gradient of their sum is the gradient of
    each, [M, D], and the backward pass only scales it. To the logits it is the target's one-hot
    vector less the probabilities, which take the place of the log-probabilities.
    """

    @staticmethod
    def forward(
        ctx: Any, chunk_logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            leaf = hidden.detach().requires_grad_()
            logits = chunk_logits(leaf)
        all_logps = F.log_softmax(logits.detach(), dim=-1)
        logps = _picked(all_logps, targets)
        to_logits = all_logps.exp_().neg_()
        to_logits[torch.arange(len(targets), device=targets.device), targets] += 1
        (gradient,) = torch.autograd.grad(logits, leaf, to_logits)
        ctx.save_for_backward(gradient)
        return logps

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return None, (gradient * grad.unsqueeze(-1)).to(gradient.dtype), None


def sequence_logps(token_logps_M: Tensor, batch: GroupBatch) -> SequenceLogps:
    """Sum token log-probabilities per response.

    The sums are in float64: over hundreds of tokens a float32 sum moves the loss in its fourth
    digit (in float32 only where the device has no float64).

    Args:
        token_logps_M: [M], in the order of the batch's flat list.
        batch: The batch they belong to.
    """
    dtype = torch.float32 if token_logps_M.device.type == "mps" else torch.float64
    sums = torch.zeros(batch.num_responses, dtype=dtype, device=token_logps_M.device)
    sums = sums.index_add(0, batch.response, token_logps_M.to(dtype))
    return SequenceLogps(sums, batch.lengths.to(dtype), batch.response_rows)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()

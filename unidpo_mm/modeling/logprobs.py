"""Log-probabilities of response tokens, in chunks, and their sums in float64.

Logits exist for one chunk of response positions at a time, [chunk, V]; never [B, T, V]. This module
imports torch alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
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
        """Returns the transformed logits, same shape."""
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
    chunk_size: int = 1024,
) -> Tensor:
    """Returns the log-probability of each target under the hidden state that predicts it.

    With gradients on, the logits of a chunk are computed again in the backward pass instead of
    being kept.

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

    def chunk_logps(hidden: Tensor, target_ids: Tensor) -> Tensor:
        logits = transform(_at_least_float32(head(hidden)))
        picked = logits.gather(-1, target_ids.unsqueeze(-1)).squeeze(-1)
        return picked - logits.logsumexp(dim=-1)

    pieces = []
    for hidden, target_ids in zip(
        hidden_MD.split(chunk_size), target_ids_M.split(chunk_size), strict=True
    ):
        if torch.is_grad_enabled():
            pieces.append(checkpoint(chunk_logps, hidden, target_ids, use_reentrant=False))
        else:
            pieces.append(chunk_logps(hidden, target_ids))
    return torch.cat(pieces)


def sequence_logps(token_logps_M: Tensor, batch: GroupBatch) -> SequenceLogps:
    """Sums token log-probabilities per response.

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

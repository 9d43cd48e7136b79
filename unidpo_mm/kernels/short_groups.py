"""Attention within many short groups at once, padded to the longest of them.

The pieces of a short group are so small that starting them takes longer than computing them.
Padding costs little, because the attention scores of a short group are a small part of a layer's
work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .group_spans import GroupSpan

__all__ = ["SHORT", "attend_together", "used_positions"]

SHORT = 256
"""The greatest number of tokens of a short group. Above it, pieces are about as fast."""


def attend_together(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    spans: Sequence[GroupSpan],
    width: int,
    scale: float | None,
) -> Tensor:
    """Attend within each group.

    Args:
        queries: [B * T, H, D], all positions of a batch.
        keys: [B * T, K, D]; H is a multiple of K.
        values: [B * T, K, E].
        spans: The N groups to attend in.
        width: T, the number of positions of a row.
        scale: The factor of the scores; `None` for 1 / sqrt(D).

    Returns:
        [P, H, E], the output at the `used_positions` of the groups.
    """
    heads, key_heads = queries.shape[1], keys.shape[1]
    padded = _pad(tuple(spans), width, str(queries.device))
    count, longest = padded.gather.shape
    shared = heads // key_heads  # queries per key; with a mask, few kernels repeat the keys
    queries = queries[padded.gather].view(count, longest, key_heads, shared, -1)
    queries = queries.permute(0, 2, 3, 1, 4).reshape(count, key_heads, shared * longest, -1)
    output = F.scaled_dot_product_attention(
        queries,
        keys[padded.gather].transpose(1, 2),
        values[padded.gather].transpose(1, 2),
        padded.mask.repeat(1, 1, shared, 1),
        scale=scale,
    )
    output = output.view(count, key_heads, shared, longest, -1).permute(0, 3, 1, 2, 4)
    return output.reshape(count * longest, heads, -1)[padded.used]


def used_positions(spans: Sequence[GroupSpan], width: int) -> Tensor:
    """Return the indices into [B * T] of the positions whose output is used."""
    return torch.cat(
        [span.row * width + torch.arange(span.first + span.unused, span.end) for span in spans]
    )


@dataclass(frozen=True, kw_only=True)
class _Padded:
    """Groups, padded to the longest one.

    Attributes:
        gather: [N, L], the position of each token in the batch; 0 for padding.
        used: [P], indices into [N * L] of the positions whose output is used.
        mask: [N, 1, L, L], whether a query may attend to a key.
    """

    gather: Tensor
    used: Tensor
    mask: Tensor


@lru_cache(maxsize=4)  # the layers of a model share it; the last one has unused positions
def _pad(spans: tuple[GroupSpan, ...], width: int, device: str) -> _Padded:
    longest = max(span.length for span in spans)
    starts = [span.row * width + span.first for span in spans]
    gather = [start + torch.arange(span.length) for start, span in zip(starts, spans, strict=True)]
    used = [
        number * longest + torch.arange(span.unused, span.length)
        for number, span in enumerate(spans)
    ]
    segments = [
        torch.repeat_interleave(torch.tensor([span.prompt, *span.branches])) for span in spans
    ]
    segment = pad_sequence(segments, batch_first=True, padding_value=-1)
    key, query = segment[:, None], segment[:, :, None]
    mask = ((key == 0) | (key == query)).tril()  # padding attends to itself, or it would be NaN
    return _Padded(
        gather=pad_sequence(gather, batch_first=True).to(device, non_blocking=True),
        used=torch.cat(used).to(device, non_blocking=True),
        mask=mask[:, None].to(device, non_blocking=True),
    )

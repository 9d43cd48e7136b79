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

This works for layers whose mask is plain causal. `group_spans` describes the pieces; it takes the
place of the mask on the way to the attention function.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GroupSpan", "are_spans", "by_branch", "group_spans"]

Attention = Callable[..., tuple[Tensor, Any]]
"""An attention function as transformers registers them."""


class GroupSpan(NamedTuple):
    """The position of a prompt and its responses in a batch.

    Attributes:
        row: The row of the batch.
        first: Position of the first prompt token.
        unused: Number of prompt tokens, from the first on, whose output is not used.
        prompt: Number of prompt tokens.
        branches: Number of tokens of each response.
    """

    row: int
    first: int
    unused: int
    prompt: int
    branches: tuple[int, ...]

    @property
    def start(self) -> int:
        """Position of the first token of the first response."""
        return self.first + self.prompt

    @property
    def end(self) -> int:
        """Position after the last response."""
        return self.start + sum(self.branches)

    @classmethod
    def of(cls, spans: Tensor) -> list["GroupSpan"]:
        """Return the rows of `group_spans`."""
        return [cls(*line[:4], tuple(line[4:])) for line in spans.tolist()]  # type: ignore[call-arg]

    def as_line(self, width: int) -> list[int]:
        """Return the span as a row of `group_spans` with `width` columns."""
        line = [*self[:4], *self.branches]
        return line + [0] * (width - len(line))


def group_spans(segment: Tensor, row_position: Tensor) -> Tensor:
    """Return where the groups of a packed batch are, as a tensor that can replace a mask.

    Args:
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position of each token in its plain row.

    Returns:
        [G, 4 + K] int64 on the CPU: the fields of `GroupSpan`, one column per branch.
    """
    spans = []
    for row, (segments, positions) in enumerate(
        zip(segment.cpu(), row_position.cpu(), strict=True)
    ):
        starts = ((segments == 0) & (positions == 0)).nonzero().flatten().tolist()
        for first, end in pairwise([*starts, segments.numel()]):
            group = segments[first:end]
            prompt, *branches = torch.bincount(group[group >= 0]).tolist()
            spans.append(GroupSpan(row, first, 0, prompt, tuple(branches)))
    width = 4 + max(len(span.branches) for span in spans)
    return torch.tensor([span.as_line(width) for span in spans])


def are_spans(mask: Tensor | None) -> bool:
    """Return whether a layer's mask is `group_spans`: no mask has an integer type."""
    return mask is not None and mask.dtype == torch.int64


def by_branch(attend: Attention) -> Attention:
    """Return an attention function that also accepts `group_spans` as its mask.

    With any other mask it is `attend`.
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
        spans = GroupSpan.of(attention_mask)
        rows = []
        for row in range(len(query)):
            q, k, v = (tensor[row : row + 1] for tensor in (query, key, value))
            row_spans = [span for span in spans if span.row == row]
            rows.append(_attend_row(q, k, v, row_spans, kwargs.get("scaling")))
        return torch.cat(rows).transpose(1, 2), None

    return attend_by_branch


def _attend_row(
    queries: Tensor, keys: Tensor, values: Tensor, spans: Sequence[GroupSpan], scale: float | None
) -> Tensor:
    """Attend within one row, [1, H, T, D]; padding and unused prompt positions become 0."""
    pieces, done = [], 0
    for span in spans:
        first_used, start = span.first + span.unused, span.start
        pieces.append(torch.zeros_like(queries[:, :, done:first_used]))
        prompt_keys = keys[:, :, span.first : start]
        prompt_values = values[:, :, span.first : start]
        pieces.append(
            _attend_causally(queries[:, :, first_used:start], prompt_keys, prompt_values, scale)
        )
        prompt_queries = queries[:, :, span.first : start]
        for length in filter(None, span.branches):
            branch = slice(start, start + length)
            branch_queries = queries[:, :, branch]
            branch_keys = torch.cat([prompt_keys, keys[:, :, branch]], dim=2)
            branch_values = torch.cat([prompt_values, values[:, :, branch]], dim=2)
            if length > span.prompt:
                all_queries = torch.cat([prompt_queries, branch_queries], dim=2)
                output = _attend_causally(all_queries, branch_keys, branch_values, scale)
                pieces.append(output[:, :, span.prompt :])
            else:
                pieces.append(_attend_causally(branch_queries, branch_keys, branch_values, scale))
            start += length
        done = start
    pieces.append(torch.zeros_like(queries[:, :, done:]))
    return torch.cat(pieces, dim=2)


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

"""Attention in pieces equals attention with a mask of the whole row, whatever their lengths."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unidpo_mm.kernels.branch_attention import by_branch, group_spans

HEADS, KEY_HEADS, WIDTH = 6, 2, 8

LENGTHS = {
    "answers shorter than the prompt": [(9, (3, 5))],
    "answers longer than the prompt": [(3, (7, 12))],
    "one of each, and one as long": [(6, (2, 11, 6))],
    "a prompt of one token": [(1, (4, 1))],
    "two groups in one row": [(4, (9, 2)), (7, (3, 8))],
}


def row_of(groups: list[tuple[int, tuple[int, ...]]], *, padding: int = 2) -> tuple[Tensor, Tensor]:
    """Segment and row position, [1, T], of groups in one row with padding behind them."""
    segment, position = [], []
    for prompt, branches in groups:
        segment += [0] * prompt
        position += range(prompt)
        for number, length in enumerate(branches, start=1):
            segment += [number] * length
            position += range(prompt, prompt + length)
    return (
        torch.tensor([segment + [-1] * padding]),
        torch.tensor([position + [0] * padding]),
    )


def whole_mask(segment: Tensor, groups: list[tuple[int, tuple[int, ...]]]) -> Tensor:
    """[T, T]: the same group's prompt, or the same branch; nothing later."""
    sizes = [prompt + sum(branches) for prompt, branches in groups]
    group = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    own = segment[0, : len(group)]
    together = group[:, None] == group[None]
    return (together & ((own[None] == 0) | (own[None] == own[:, None]))).tril()


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kw: Any) -> Any:
    raise AssertionError("the spans were not taken for spans")


def inputs(tokens: int) -> list[Tensor]:
    drawn = torch.Generator().manual_seed(0)
    shapes = [(1, heads, tokens, WIDTH) for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return [torch.randn(shape, generator=drawn).requires_grad_() for shape in shapes]


def both(groups: list[tuple[int, tuple[int, ...]]], taken: Any = None) -> list[list[Tensor]]:
    """Output and gradients of either way; `taken` are the groups that the pieces take it for."""
    segment, position = row_of(groups)
    tokens = segment.shape[1]
    real = sum(prompt + sum(branches) for prompt, branches in groups)
    found = []
    for pieces in (True, False):
        query, key, value = inputs(tokens)
        if pieces:
            spans = group_spans(*row_of(taken)) if taken else group_spans(segment, position)
            out, _ = by_branch(attend)(nn.Module(), query, key, value, spans, scaling=0.3)
            out = out.transpose(1, 2)[:, :, :real]
        else:
            out = F.scaled_dot_product_attention(
                query[:, :, :real],
                key[:, :, :real].repeat_interleave(HEADS // KEY_HEADS, 1),
                value[:, :, :real].repeat_interleave(HEADS // KEY_HEADS, 1),
                whole_mask(segment, groups),
                scale=0.3,
            )
        (out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum().backward()
        found.append([out.detach(), *(tensor.grad for tensor in (query, key, value))])
    return found


@pytest.mark.parametrize("groups", LENGTHS.values(), ids=LENGTHS.keys())
def test_pieces_give_what_one_mask_gives(groups: list[tuple[int, tuple[int, ...]]]) -> None:
    pieces, whole = both(groups)
    for mine, theirs in zip(pieces, whole, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_wrong_border_is_seen() -> None:
    pieces, whole = both([(3, (7, 12))], taken=[(3, (8, 11))])
    assert not torch.allclose(pieces[0], whole[0], atol=1e-3)

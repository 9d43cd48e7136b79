"""Encoded groups from token ids, and filler groups; shared by all families."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from unidpo_mm.records import (
    EncodedGroup,
    ImageRef,
    Media,
    MediaKind,
    MediaSlot,
    Message,
    Pair,
    PreferenceRow,
    Preferences,
    Response,
    RowInfo,
)

from ._tokens import Span

__all__ = ["as_filler", "filler_row", "group_of"]


def group_of(
    row: PreferenceRow,
    span: Span,
    *,
    cut: int = 0,
    token_extras: Mapping[str, tuple[Tensor, ...]] | None = None,
    media: Mapping[MediaKind, Media] | None = None,
) -> EncodedGroup:
    """Return the encoded group of a row from its ids and media.

    A span without responses makes a group of the prompt alone, for generation.
    """
    return EncodedGroup(
        row=RowInfo.of(row),
        prompt_ids=torch.tensor(span.prompt_ids, dtype=torch.int64),
        response_ids=tuple(torch.tensor(ids, dtype=torch.int64) for ids in span.response_ids),
        token_extras=token_extras or {},
        media=media or {},
        preferences=Preferences.of(row) if span.response_ids else Preferences(),
        cut_responses=cut,
    )


def filler_row(images: tuple[ImageRef, ...]) -> PreferenceRow:
    """Return the shortest row that forms a pair, with an image if the family has images."""
    parts: tuple[str | MediaSlot, ...] = (*(MediaSlot("image") for _ in images), "a")
    return PreferenceRow(
        id="filler",
        domain="multimodal" if images else "text",
        source="filler",
        where="filler",
        messages=(Message("user", parts),),
        images=images,
        responses=(Response("a", 0.0), Response("b", 0.0)),
        pairs=(Pair(0, 1),),
        raw=True,
    )


def as_filler(group: EncodedGroup) -> EncodedGroup:
    """Return the group with weight 0, so that no loss or metric counts it."""
    return dataclasses.replace(group, weight=0.0)

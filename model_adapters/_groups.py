"""Encoded groups from token ids, and filler groups; shared by all families."""

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unidpo_mm.records import (
    EncodedGroup,
    ImageRef,
    ImageSlot,
    Message,
    Pair,
    PreferenceRow,
    Response,
)

from ._tokens import Span

__all__ = ["as_filler", "filler_row", "group_of"]


def group_of(
    row: PreferenceRow,
    span: Span,
    *,
    cut: int = 0,
    shrunk: int = 0,
    token_extras: Mapping[str, tuple[Tensor, ...]] | None = None,
    image_extras: Mapping[str, Tensor] | None = None,
    image_tokens: int = 0,
    image_token_id: int | None = None,
) -> EncodedGroup:
    """Return the encoded group of a row from its ids and image tensors.

    A span without responses makes a group of the prompt alone, for generation.
    """
    has_responses = bool(span.response_ids)
    scores = [math.nan if r.score is None else r.score for r in row.responses if has_responses]
    return EncodedGroup(
        row_id=row.id,
        domain=row.domain,
        source=row.source,
        where=row.where,
        prompt_ids=torch.tensor(span.prompt_ids, dtype=torch.int64),
        response_ids=tuple(torch.tensor(ids, dtype=torch.int64) for ids in span.response_ids),
        token_extras=token_extras or {},
        image_extras=image_extras or {},
        num_images=len(row.images),
        image_tokens=image_tokens,
        image_token_id=image_token_id,
        scores=torch.tensor(scores, dtype=torch.float64),
        pairs=row.pairs if has_responses else (),
        targets=row.targets() if has_responses else (),
        cut_responses=cut,
        shrunk_images=shrunk,
    )


def filler_row(images: tuple[ImageRef, ...]) -> PreferenceRow:
    """Return the shortest row that forms a pair, with an image if the family has images."""
    parts: tuple[str | ImageSlot, ...] = (*(ImageSlot() for _ in images), "a")
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

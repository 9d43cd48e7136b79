"""The base of the adapters of all families, and encoded groups from token ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterOptions
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

from ._conversation import render
from ._limits import ModelLimits
from ._notices import Notices
from ._tokens import Rendered, Span

__all__ = ["BaseAdapter", "group_of"]


class BaseAdapter:
    """An adapter whose subclasses encode responses in `_encode`.

    Args:
        processor: The processor of the model; a tokenizer for families without images.
        options: The options of the run.
        limits: The sizes of the model that a row must fit.
    """

    placeholder: str | None = None
    """The text of an image if no chat template is used; `None` for families without images."""

    def __init__(
        self, processor: Any, options: AdapterOptions, limits: ModelLimits | None = None
    ) -> None:
        self.processor, self.options = processor, options
        self.limits = limits or ModelLimits()
        self.notices = Notices()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the processor."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def pad_token_id(self) -> int:
        """The id of padding, which is masked: any id with an embedding."""
        return self.limits.pad_token_id(self.tokenizer)

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Encode a row as ids and image tensors; see `unidpo_mm.adapter.Adapter.encode`."""
        return self._encode(row, row.responses)

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Encode the prompt and its images without responses, for generation."""
        return self._encode(row, ())

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take; see `unidpo_mm.adapter.Adapter.check_fit`."""
        self.limits.check(row, group, self.tokenizer)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0, so that no loss or metric counts it."""
        return self._filler(())

    def _filler(self, images: tuple[ImageRef, ...]) -> EncodedGroup:
        row = PreferenceRow(
            id="filler",
            domain="multimodal" if images else "text",
            source="filler",
            where="filler",
            messages=(Message("user", (*(MediaSlot("image") for _ in images), "a")),),
            images=images,
            responses=(Response("a", 0.0), Response("b", 0.0)),
            pairs=(Pair(0, 1),),
            raw=True,
        )
        return dataclasses.replace(self.encode(row), weight=0.0)

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        raise NotImplementedError

    def _render(self, row: PreferenceRow, responses: Sequence[Response]) -> Rendered:
        return render(
            row,
            self.processor,
            self.tokenizer,
            self.options,
            placeholder=self.placeholder,
            responses=responses,
            notices=self.notices,
        )


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

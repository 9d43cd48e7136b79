"""The base of the adapters of all families, and encoded groups from token ids."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterOptions, ImageSetting
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import (
    EncodedGroup,
    EncoderInputs,
    ImageRef,
    Media,
    MediaKind,
    MediaSlot,
    Message,
    ModelInputs,
    Pair,
    PreferenceRow,
    Preferences,
    Response,
    RowInfo,
    VideoRef,
)

from ._chat_template import template_of
from ._conversation import Conversation, no_template, with_start_first
from ._limits import ModelLimits
from ._notices import Notices, warn_of_changed_messages, warn_of_templated_text
from ._tokens import Rendered, Span

__all__ = ["BaseAdapter", "filler_row", "group_of"]


class BaseAdapter:
    """An adapter whose subclasses encode responses in `_encode`.

    Args:
        processor: The processor of the model; a tokenizer for families without images.
        options: The options of the run.
        limits: The sizes of the model that a row must fit.
    """

    placeholders: Mapping[MediaKind, str] = {}
    """The text of an image or a video if no chat template is used; empty for families without."""

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

    @property
    def image_settings(self) -> Sequence[ImageSetting]:
        """The settings that the number of image tokens depends on; none without images."""
        return ()

    def check_processor(self) -> None:
        """Check nothing: the tokenizer encodes no images."""

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Encode a row as ids and image tensors; see `unidpo_mm.adapter.Adapter.encode`."""
        return self._encode(row, row.responses)

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Encode the prompt and its images without responses, for generation."""
        return self._encode(row, ())

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take; see `unidpo_mm.adapter.Adapter.check_fit`."""
        self.limits.check(row, group, self.tokenizer)

    def generation_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return ids, mask, token types and images."""
        return inputs.tensors

    @property
    def rounds_pixels(self) -> bool:
        """Whether batches may contain pixels in the number format of the computation."""
        return False

    def tower_inputs(self, kind: MediaKind, inputs: Mapping[str, Tensor]) -> EncoderInputs:
        """Return nothing: the tower computes what it needs itself."""
        return EncoderInputs()

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0, so that no loss or metric counts it."""
        return self._filler()

    def video_filler(self) -> EncodedGroup | None:
        """Return `None`: the model computes no features of videos."""
        return None

    def _filler(
        self, images: tuple[ImageRef, ...] = (), videos: tuple[VideoRef, ...] = ()
    ) -> EncodedGroup:
        return dataclasses.replace(self.encode(filler_row(images, videos)), weight=0.0)

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        """Encode a row with these responses; every subclass implements this."""
        raise NotImplementedError

    def _render(self, row: PreferenceRow, responses: Sequence[Response]) -> Rendered:
        """Render a row as text.

        Args:
            row: The row.
            responses: Its first responses, or none to render the prompt alone.

        Raises:
            DataError: If the chat template refuses the row or changes a response; with the problems
                of all responses.
        """
        template = template_of(self.processor, self.tokenizer, tools=bool(row.tools))
        style = self.options.prompt_style
        if template is None and (style == "chat" or not row.raw):
            why = "model.prompt_style is 'chat'" if row.raw else "the prompt is a conversation"
            raise DataError(no_template(row, why))
        if template is None or (row.raw and style == "raw"):
            return self._raw(row, responses)
        as_parts = bool(self.placeholders)
        conversation = Conversation(
            row, self.processor, template, self.options, as_parts=as_parts, notices=self.notices
        )
        continuations: list[str] = []
        problems: list[Problem] = []
        for number, response in enumerate(responses):
            try:
                text = conversation.continuation(response.text, row.response_field(number))
                continuations.append(text)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        prompt, bos = conversation.prompt, self.tokenizer.bos_token
        warn_of_changed_messages(row, prompt, self.notices)
        warn_of_templated_text(row, prompt, continuations, self.notices)
        # as in transformers: a tokenizer's template writes all special tokens, a processor's may
        # leave the first one to the tokenizer
        adds_first_tokens = as_parts and not (bos and prompt.startswith(bos))
        return Rendered(prompt, tuple(continuations), adds_first_tokens)

    def _raw(self, row: PreferenceRow, responses: Sequence[Response]) -> Rendered:
        """Return a row as text without a chat template."""
        if row.tools or any(message.extras for message in row.messages):
            raise DataError(no_template(row, "the row has tools"))
        marks = self.placeholders
        parts = [part for message in row.messages for part in message.parts]
        prompt = "".join(
            part if isinstance(part, str) else marks.get(part.kind, "") for part in parts
        )
        if marks and row.media:
            prompt = with_start_first(prompt, self.tokenizer, tuple(marks.values()))
        return Rendered(prompt, tuple(r.text for r in responses), adds_first_tokens=True)


def filler_row(
    images: tuple[ImageRef, ...] = (), videos: tuple[VideoRef, ...] = ()
) -> PreferenceRow:
    """Return a short row with media."""
    slots = (*(MediaSlot("image") for _ in images), *(MediaSlot("video") for _ in videos))
    return PreferenceRow(
        id="filler",
        domain="multimodal" if slots else "text",
        source="filler",
        where="filler",
        messages=(Message("user", (*slots, "a")),),
        images=images,
        videos=videos,
        responses=(Response("a", 0.0), Response("b", 0.0)),
        pairs=(Pair(0, 1),),
        raw=True,
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

"""The adapter of all families with images, which encodes rows with the processor of the model.

The module of a family only declares `ImageTraits`: its image placeholder, the tensors that its
processor returns for images, and whether the model needs token types that mark image tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterOptions, ImageSetting
from unidpo_mm.errors import DataError, ImageError, ModelError, Problem
from unidpo_mm.records import (
    EncodedGroup,
    EncoderInputs,
    FrameSampling,
    Media,
    MediaKind,
    ModelInputs,
    PreferenceRow,
    Response,
)

from ._base import BaseAdapter, filler_row, group_of
from ._chat_template import template_of
from ._conversation import fit_responses, longest_row
from ._image_settings import settings_of
from ._image_start import (
    cannot_encode,
    other_tensors,
    template_failure,
    wrong_placeholders,
    wrong_token,
)
from ._images import BlankImage, feature_token_id, placeholder_token, video_token_id
from ._limits import ModelLimits
from ._media import OpenedMedia
from ._tokens import Rendered, Span, split_ids
from ._videos import (
    BlankVideo,
    VideoTraits,
    check_video_options,
    frame_sampling,
    refuse_videos,
    video_arguments,
)

__all__ = ["ImageAdapter", "ImageTraits"]

SHRINKING_ATTEMPTS = 8
"""Maximum number of attempts to make a row fit; processors round sizes to multiples of patches."""
IMAGE_TYPE, VIDEO_TYPE = 1, 2
"""Token types of images and videos."""

TOKEN_TENSORS = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}
)
"""Tensors of tokens that a processor returns; the adapter builds these itself."""


@dataclass(frozen=True, kw_only=True)
class ImageTraits:
    """Properties of the processor and the models of a family with images.

    Attributes:
        image_keys: Tensors that the processor returns for images and that the models accept.
        placeholder: The text for an image in a prompt without a chat template; the processor
            expands the image token in it.
        token_types: Name of the model input that marks image tokens with 1; `None` if the model
            detects them itself.
        resizable: Whether smaller images have fewer tokens.
        sends_positions: Whether the model gets one position per token; False for models that
            compute multi-dimensional positions themselves.
        unit_key: The tensor with one entry per part in which the model returns features, such as
            tiles; `None` if it returns them per image.
        dropped: Tensors that the processor returns and the model does not take.
        rounds_pixels: Whether the tower rounds pixels to the number format of the computation
            before anything else, so that batches may contain them in that format.
        replaces_image_token: Whether the model needs no embedding for its image token.
        video: The properties for videos; `None` if they are not supported.
        tower: (kind, tensors) -> what the tower computes from sizes; `None` if it needs nothing.
    """

    image_keys: frozenset[str]
    placeholder: str
    token_types: str | None = None
    resizable: bool = True
    sends_positions: bool = True
    unit_key: str | None = None
    dropped: frozenset[str] = frozenset()
    rounds_pixels: bool = True
    replaces_image_token: bool = False
    video: VideoTraits | None = None
    tower: Callable[[MediaKind, Mapping[str, Tensor]], EncoderInputs] | None = None


class ImageAdapter(BaseAdapter):
    """An adapter for rows with any number of images and videos."""

    def __init__(
        self, processor: Any, config: Any, traits: ImageTraits, options: AdapterOptions
    ) -> None:
        limits = ModelLimits.of(config, replaces_image_token=traits.replaces_image_token)
        super().__init__(processor, options, limits)
        self.traits, self.config = traits, config
        self.model_type = str(config.model_type)
        self.placeholders = {"image": traits.placeholder}
        if traits.video is not None:
            self.placeholders["video"] = traits.video.placeholder
        check_video_options(traits.video, options, self.model_type)
        self.image_token = placeholder_token(processor)
        token_id = feature_token_id(config)
        if token_id is None:
            problem = "its configuration has no id of an image token"
            remedy = "Add image_token_id to its config.json, as in the original checkpoint"
            raise ModelError(Problem("model.name_or_path", problem, remedy))
        self.image_token_id = token_id
        self._check_names()
        placeholder_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        self._reserved_ids = {token_id, video_token_id(config)} - {placeholder_id, None}
        has_features = traits.video is not None and traits.video.keys
        self.video_token_id = video_token_id(config) if has_features else None

    @property
    def image_settings(self) -> Sequence[ImageSetting]:
        """The settings of the processor that the number of image tokens depends on."""
        return settings_of(self.processor, self.config)

    def check_processor(self) -> None:
        """Refuse a processor that cannot encode a blank image.

        Raises:
            ProcessorError: See `unidpo_mm.adapter.Adapter.check_processor`.
        """
        row = filler_row((BlankImage(),))
        try:
            rendered = self._render(row, ())
        except DataError as error:  # the rows of a run may differ
            if (failure := template_failure(self.processor, error)) is not None:
                raise failure from error
            return
        count = rendered.prompt.count(self.image_token)
        if count != 1 and self._uses_template(row):
            raise wrong_placeholders(self.processor, self.image_token, count)
        opened, text_span = (
            OpenedMedia.of(row, None, self.options),
            split_ids(rendered, self.tokenizer),
        )
        if self.image_token_id in self._reserved_ids.intersection(text_span.prompt_ids):
            raise wrong_token(self.processor, self.config, self.image_token_id, None)
        try:
            span, _ = self._expand(row, rendered, text_span, opened)
        except DataError as error:
            reason = error.__cause__ or error
            raise cannot_encode(self.processor, self.image_settings, reason) from error
        # the configuration may name another token that the processor writes, such as a mark
        count = span.prompt_ids.count(self.image_token_id)
        own_id = getattr(self.processor, "image_token_id", None)
        if own_id is not None and span.prompt_ids.count(own_id) > count:
            raise wrong_token(self.processor, self.config, self.image_token_id, None)

    def _uses_template(self, row: PreferenceRow) -> bool:
        template = template_of(self.processor, self.tokenizer)
        return template is not None and not (row.raw and self.options.prompt_style == "raw")

    @property
    def rounds_pixels(self) -> bool:
        """Whether batches may contain pixels in the number format of the computation."""
        return self.traits.rounds_pixels

    @property
    def frame_sampling(self) -> FrameSampling:
        """How frames of videos are sampled."""
        return frame_sampling(self.traits.video, self.options)

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0 with a blank image, to run all parts of the model."""
        return self._filler((BlankImage(),))

    def video_filler(self) -> EncodedGroup | None:
        """Return a filler with a blank video; `None` if no features of videos are computed."""
        return None if self.video_token_id is None else self._filler(videos=(BlankVideo(),))

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return ids, mask, media and, if the model accepts them, positions and token types."""
        positions = {"position_ids": inputs.row_position} if self.traits.sends_positions else {}
        return {**inputs.tensors, **positions}

    def tower_inputs(self, kind: MediaKind, inputs: Mapping[str, Tensor]) -> EncoderInputs:
        """Return what the tower of the family computes from the sizes of the media of a batch."""
        return EncoderInputs() if self.traits.tower is None else self.traits.tower(kind, inputs)

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        refuse_videos(row, self.traits.video, self.model_type)
        rendered = self._render(row, responses)
        self._check_placeholders(row, rendered)
        text_span = split_ids(rendered, self.tokenizer)
        self._refuse_media_tokens(row, text_span)
        span, tensors, opened = self._with_media(row, rendered, text_span)
        media = self._media(row, span, tensors, opened)
        span, cut = fit_responses(
            row,
            span,
            self.options,
            image_tokens=media["image"].tokens,
            video_tokens=media["video"].tokens if "video" in media else 0,
            resizable=self.traits.resizable,
        )
        token_types = self._token_types(span)
        return group_of(row, span, cut=cut, token_extras=token_types, media=media)

    def _check_placeholders(self, row: PreferenceRow, rendered: Rendered) -> None:
        """Refuse a rendered prompt with another number of placeholders than of media."""
        counts = [("an image", self.image_token, len(row.images))]
        # without videos, the token of their features is refused below
        if self.traits.video is not None and (row.videos or self.video_token_id is None):
            counts.append(("a video", self.processor.video_token, len(row.videos)))
        for kind, token, expected in counts:
            count = rendered.prompt.count(token)
            if count != expected:
                noun = kind.split()[1]
                problem = f"the rendered prompt has {count} placeholders for {expected} {noun}s"
                remedy = f"Use '{token}' only as the placeholder of {kind}"
                raise DataError(Problem(f"{row.where}, field 'prompt'", problem, remedy))

    def _media(
        self,
        row: PreferenceRow,
        span: Span,
        tensors: Mapping[str, Tensor],
        opened: OpenedMedia,
    ) -> dict[MediaKind, Media]:
        """Return the media of a row from the tensors of the processor."""
        video_keys = frozenset() if self.traits.video is None else self.traits.video.keys
        inputs = {name: tensor for name, tensor in tensors.items() if name not in video_keys}
        media: dict[MediaKind, Media] = {
            "image": Media(
                inputs=inputs,
                entries=len(inputs.get(self.traits.unit_key or "", row.images)),
                tokens=span.prompt_ids.count(self.image_token_id),
                token_id=self.image_token_id,
                shrunk=opened.shrunk_images,
            )
        }
        if self.video_token_id is not None:
            media["video"] = Media(
                inputs={name: tensor for name, tensor in tensors.items() if name in video_keys},
                entries=len(row.videos),
                tokens=span.prompt_ids.count(self.video_token_id),
                token_id=self.video_token_id,
                shrunk=opened.shrunk_videos,
            )
        return media

    def _refuse_media_tokens(self, row: PreferenceRow, span: Span) -> None:
        """Refuse a text with a token whose place the features of an image or a video take."""
        reserved = self._reserved_ids - ({self.video_token_id} if row.videos else set())
        fields = ["prompt", *map(row.response_field, range(len(span.response_ids)))]
        for field, ids in zip(fields, (span.prompt_ids, *span.response_ids), strict=True):
            for token_id in reserved.intersection(ids):
                token = self.tokenizer.convert_ids_to_tokens(token_id)
                problem = f"the text contains '{token}', which stands for an image or a video"
                remedy = f"Remove it from the text; the place of an image is '{self.image_token}'"
                raise DataError(Problem(f"{row.where}, field '{field}'", problem, remedy))

    def _with_media(
        self, row: PreferenceRow, rendered: Rendered, text_span: Span
    ) -> tuple[Span, Mapping[str, Tensor], OpenedMedia]:
        """Return the span with expanded placeholders, the tensors of the media, and the media.

        With the length policy ``shrink_image``, videos get fewer frames and then images and frames
        are made smaller, until the row fits.
        """
        opened = OpenedMedia.of(row, self.traits.video, self.options)
        if not row.media:
            return text_span, {}, opened
        for _ in range(1 + SHRINKING_ATTEMPTS):
            span, tensors = self._expand(row, rendered, text_span, opened)
            excess = self._excess(row, span)
            smaller = opened.smaller(*self._media_tokens(span), excess) if excess else None
            if smaller is None:
                break
            opened = smaller
        return span, tensors, opened

    def _excess(self, row: PreferenceRow, span: Span) -> int:
        """Return the number of tokens by which a row has to be made shorter."""
        limit = self.options.max_length
        if limit is None or self.options.length_policy != "shrink_image" or not span.response_ids:
            return 0
        return max(longest_row(row, span) - limit, 0)

    def _media_tokens(self, span: Span) -> tuple[int, int]:
        """Return the numbers of image and of video tokens."""
        ids, video = span.prompt_ids, self.video_token_id
        return ids.count(self.image_token_id), 0 if video is None else ids.count(video)

    def _expand(
        self, row: PreferenceRow, rendered: Rendered, text_span: Span, opened: OpenedMedia
    ) -> tuple[Span, Mapping[str, Tensor]]:
        """Return the span with expanded placeholders, and the tensors of the media."""
        images = {"images": [list(opened.images)]} if opened.images else {}  # all of one text
        try:
            encoded = self.processor(
                text=rendered.prompt,
                **images,
                **video_arguments(opened.videos),
                add_special_tokens=False,  # first_ids are added below
                return_tensors="pt",
            )
        except Exception as error:  # processors raise errors of any class
            raise self._refused(row, opened, error) from error
        self._check_tensors(encoded)
        ids = encoded["input_ids"][0].tolist()
        if ids.count(self.image_token_id) < len(opened.images):
            raise wrong_token(self.processor, self.config, self.image_token_id, None)
        span = dataclasses.replace(text_span, prompt_ids=[*text_span.first_ids, *ids])
        return span, self._media_tensors(encoded)

    def _media_tensors(self, encoded: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the tensors of the media, whose first dimension is that along which they join."""
        return {name: encoded[name] for name in self._media_keys if name in encoded}

    @property
    def _media_keys(self) -> frozenset[str]:
        video = self.traits.video
        return self.traits.image_keys | (frozenset() if video is None else video.keys)

    def _refused(self, row: PreferenceRow, opened: OpenedMedia, error: Exception) -> DataError:
        """Return the error of a row that the processor refuses.

        Each image is processed alone, to find those that are refused, for example because of their
        aspect ratio.
        """
        problems = []
        for reference, image in zip(row.images, opened.images, strict=True):
            try:
                self.processor.image_processor(images=[image], return_tensors="pt")
            except Exception as reason:
                width, height = image.size
                problem = (
                    f"the model's processor refuses the image '{reference.describe()}' of "
                    f"{width} x {height} pixels ({str(reason).strip() or type(reason).__name__})"
                )
                remedy = (
                    "Crop or replace it, remove the row, or raise "
                    "data.images.max_skipped_fraction to skip such rows"
                )
                problems.append(Problem(f"{row.where}, field 'images'", problem, remedy))
        if problems:
            return ImageError(problems)
        kinds = [kind for kind in ("image", "video") if getattr(row, f"{kind}s")]
        names = ", ".join(media.describe() for media in row.media)
        text = str(error).strip() or type(error).__name__
        problem = (
            f"the model's processor refuses the row with the {' and '.join(kinds)}s {names}: {text}"
        )
        remedy = f"Replace the {kinds[-1]}s, remove special tokens from the text, or remove the row"
        return DataError(Problem(f"{row.where}, field '{kinds[-1]}s'", problem, remedy))

    def _token_types(self, span: Span) -> Mapping[str, tuple[Tensor, ...]]:
        """Return token types: 1 for image and 2 for video tokens, 0 for others and in responses."""
        if self.traits.token_types is None:
            return {}
        ids = torch.tensor(span.prompt_ids)
        prompt = (ids == self.image_token_id).long() * IMAGE_TYPE
        if self.video_token_id is not None:
            prompt[ids == self.video_token_id] = VIDEO_TYPE
        responses = (torch.zeros(len(ids), dtype=torch.int64) for ids in span.response_ids)
        return {self.traits.token_types: (prompt, *responses)}

    def _check_names(self) -> None:
        """Refuse a processor whose image token or tensors are those of another model."""
        if self.tokenizer.convert_tokens_to_ids(self.image_token) != self.image_token_id:
            raise wrong_token(self.processor, self.config, self.image_token_id, self.image_token)
        names = set(self.processor.image_processor.model_input_names)
        if extra := sorted(names - self.traits.image_keys):
            raise other_tensors(self.processor, extra)

    def _check_tensors(self, encoded: Mapping[str, Any]) -> None:
        """Refuse a processor whose tensors would not reach the model."""
        lost = sorted(encoded.keys() - self._media_keys - self.traits.dropped - TOKEN_TENSORS)
        if lost:
            problem_text = (
                f"{type(self.processor).__name__} returns {', '.join(lost)}, which this model "
                "family does not pass to the model"
            )
            remedy = "Choose another model or, if model.adapter is set, another family"
            raise ModelError(Problem("model.name_or_path", problem_text, remedy))

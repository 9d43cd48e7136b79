"""The adapter of all families with images, which encodes rows with the processor of the model.

The module of a family only declares `ImageTraits`: its image placeholder, the tensors that its
processor returns for images, and whether the model needs token types that mark image tokens.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import DataError, ImageError, ModelError, Problem
from unidpo_mm.records import EncodedGroup, Media, ModelInputs, PreferenceRow, Response

from ._base import BaseAdapter, group_of
from ._conversation import fit_responses, longest_row
from ._images import BlankImage, feature_token_id, video_token_id
from ._limits import ModelLimits
from ._tokens import Rendered, Span, split_ids

__all__ = ["ImageAdapter", "ImageTraits"]

SHRINKING_ATTEMPTS = 8
"""Maximum number of attempts to make a row fit; processors round sizes to multiples of patches."""

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
    """

    image_keys: frozenset[str]
    placeholder: str
    token_types: str | None = None
    resizable: bool = True
    sends_positions: bool = True
    unit_key: str | None = None
    dropped: frozenset[str] = frozenset()


class ImageAdapter(BaseAdapter):
    """An adapter for rows with any number of images."""

    def __init__(
        self, processor: Any, config: Any, traits: ImageTraits, options: AdapterOptions
    ) -> None:
        super().__init__(processor, options, ModelLimits.of(config))
        self.traits, self.placeholder = traits, traits.placeholder
        self.image_token = str(processor.image_token)  # some have an AddedToken
        token_id = feature_token_id(config)
        if token_id is None:
            problem = "its configuration has no id of an image token"
            remedy = "Add image_token_id to its config.json, as in the original checkpoint"
            raise ModelError(Problem("model.name_or_path", problem, remedy))
        self.image_token_id = token_id
        placeholder_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        self._reserved_ids = {token_id, video_token_id(config)} - {placeholder_id, None}
        if (reason := self._processor_problem()) is not None:
            raise self._foreign(reason)

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0 with a blank image, to run all parts of the model."""
        return self._filler((BlankImage(),))

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return ids, mask, images and, if the model accepts them, positions and token types."""
        positions = {"position_ids": inputs.row_position} if self.traits.sends_positions else {}
        return {**inputs.tensors, **positions}

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        rendered = self._render(row, responses)
        count = rendered.prompt.count(self.image_token)
        if count != len(row.images):
            message = f"the rendered prompt has {count} placeholders for {len(row.images)} images"
            remedy = f"Use '{self.image_token}' only as the placeholder of an image"
            raise DataError(Problem(f"{row.where}, field 'prompt'", message, remedy))
        text_span = split_ids(rendered, self.tokenizer)
        self._refuse_media_tokens(row, text_span)
        span, tensors, shrunk = self._with_images(row, rendered, text_span)
        images = Media(
            inputs=tensors,
            entries=len(tensors.get(self.traits.unit_key or "", row.images)),
            tokens=span.prompt_ids.count(self.image_token_id),
            token_id=self.image_token_id,
            shrunk=shrunk,
        )
        resizable = self.traits.resizable
        span, cut = fit_responses(
            row, span, self.options, image_tokens=images.tokens, resizable=resizable
        )
        token_types = self._token_types(span)
        return group_of(row, span, cut=cut, token_extras=token_types, media={"image": images})

    def _refuse_media_tokens(self, row: PreferenceRow, span: Span) -> None:
        """Refuse a text with a token whose place the features of an image or a video take."""
        fields = ["prompt", *map(row.response_field, range(len(span.response_ids)))]
        for field, ids in zip(fields, (span.prompt_ids, *span.response_ids), strict=True):
            for token_id in self._reserved_ids.intersection(ids):
                token = self.tokenizer.convert_ids_to_tokens(token_id)
                problem = f"the text contains '{token}', which stands for an image or a video"
                remedy = f"Remove it from the text; the place of an image is '{self.image_token}'"
                raise DataError(Problem(f"{row.where}, field '{field}'", problem, remedy))

    def _with_images(
        self, row: PreferenceRow, rendered: Rendered, text_span: Span
    ) -> tuple[Span, Mapping[str, Tensor], int]:
        """Return the span with expanded placeholders, image tensors and number of resized images.

        With the length policy ``shrink_image``, images are made smaller until the row fits.
        """
        if not row.images:
            return text_span, {}, 0
        images = [image.open() for image in row.images]
        shrunk = tokens = 0
        for _ in range(1 + SHRINKING_ATTEMPTS):
            span, tensors = self._expand(row, rendered, text_span, images)
            scale = self._scale(span, len(images))
            if scale is None:
                break
            # an image above the processor's own limit has as many tokens as one at that limit
            previous, tokens = tokens, span.prompt_ids.count(self.image_token_id)
            scale = min(scale, 0.5) if tokens == previous else scale
            sizes = [[max(round(side * scale), 1) for side in image.size] for image in images]
            images = [image.resize(size) for image, size in zip(images, sizes, strict=True)]
            shrunk = len(images)
        return span, tensors, shrunk

    def _scale(self, span: Span, images: int) -> float | None:
        """Return the factor to scale images by so that a row fits; `None` to keep their sizes."""
        limit = self.options.max_length
        if limit is None or self.options.length_policy != "shrink_image" or not span.response_ids:
            return None
        current = span.prompt_ids.count(self.image_token_id)
        target = current - (longest_row(span) - limit)
        return math.sqrt(target / current) if images <= target < current else None

    def _expand(
        self, row: PreferenceRow, rendered: Rendered, text_span: Span, images: Sequence[Any]
    ) -> tuple[Span, Mapping[str, Tensor]]:
        """Return the span with expanded placeholders, and the tensors of the images."""
        try:
            encoded = self.processor(
                text=rendered.prompt,
                images=[list(images)],  # all images of one text
                add_special_tokens=False,  # first_ids are added below
                return_tensors="pt",
            )
        except Exception as error:  # processors raise errors of any class
            raise self._refused(row, images, error) from error
        self._check_tensors(encoded)
        ids = encoded["input_ids"][0].tolist()
        if ids.count(self.image_token_id) < len(images):
            raise self._foreign(f"it does not replace '{self.image_token}' by image tokens")
        span = dataclasses.replace(text_span, prompt_ids=[*text_span.first_ids, *ids])
        return span, self._media_tensors(encoded)

    def _media_tensors(self, encoded: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Return the tensors of the images, whose first dimension is that along which they join."""
        return {name: encoded[name] for name in self.traits.image_keys if name in encoded}

    def _refused(self, row: PreferenceRow, images: Sequence[Any], error: Exception) -> DataError:
        """Return the error of a row that the processor refuses.

        Each image is processed alone, to find those that are refused, for example because of their
        aspect ratio.
        """
        where = f"{row.where}, field 'images'"
        problems = []
        for reference, opened in zip(row.images, images, strict=True):
            try:
                self.processor.image_processor(images=[opened], return_tensors="pt")
            except Exception as reason:
                width, height = opened.size
                problem = (
                    f"the model's processor refuses the image '{reference.describe()}' of "
                    f"{width} x {height} pixels ({str(reason).strip() or type(reason).__name__})"
                )
                remedy = (
                    "Crop or replace it, remove the row, or raise "
                    "data.images.max_skipped_fraction to skip such rows"
                )
                problems.append(Problem(where, problem, remedy))
        if problems:
            return ImageError(problems)
        names = ", ".join(image.describe() for image in row.images)
        text = str(error).strip() or type(error).__name__
        problem = f"the model's processor refuses the row with the images {names}: {text}"
        remedy = "Replace the images, remove special tokens from the text, or remove the row"
        return DataError(Problem(where, problem, remedy))

    def _token_types(self, span: Span) -> Mapping[str, tuple[Tensor, ...]]:
        """Return token types: 1 for image tokens, 0 for all others and in responses."""
        if self.traits.token_types is None:
            return {}
        prompt = (torch.tensor(span.prompt_ids) == self.image_token_id).long()
        responses = (torch.zeros(len(ids), dtype=torch.int64) for ids in span.response_ids)
        return {self.traits.token_types: (prompt, *responses)}

    def _processor_problem(self) -> str | None:
        """Return why the processor belongs to another model; `None` if it does not."""
        token_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        names = set(self.processor.image_processor.model_input_names)
        if token_id != self.image_token_id:
            return f"its '{self.image_token}' has the id {token_id}, not {self.image_token_id}"
        if not names <= self.traits.image_keys:
            extra = ", ".join(sorted(names - self.traits.image_keys))
            return f"it returns {extra} for an image"
        return None

    def _foreign(self, reason: str) -> ModelError:
        """Return the error of a processor that belongs to another model."""
        problem = f"{type(self.processor).__name__} belongs to another model: {reason}"
        remedy = "Pass the processor of the model, or remove the argument"
        return ModelError(Problem("processing_class", problem, remedy))

    def _check_tensors(self, encoded: Mapping[str, Any]) -> None:
        """Refuse a processor whose image tensors would not reach the model."""
        lost = sorted(encoded.keys() - self.traits.image_keys - self.traits.dropped - TOKEN_TENSORS)
        if lost:
            problem_text = (
                f"{type(self.processor).__name__} returns {', '.join(lost)}, which this model "
                "family does not pass to the model"
            )
            remedy = "Choose another family in model.adapter, or null to detect it"
            raise ModelError(Problem("model.adapter", problem_text, remedy))

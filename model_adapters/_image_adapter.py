"""The adapter that families with images share: text and images through a model's processor.

Families differ in data, not in code: a family's module states its placeholder, the tensors that its
processor returns for images, and whether the model wants to be told which tokens are images.
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
from unidpo_mm.records import EncodedGroup, GroupBatch, PreferenceRow, Response

from ._conversation import fit_responses, longest_row, render
from ._groups import as_filler, filler_row, group_of
from ._images import BlankImage, smaller
from ._limits import ModelLimits
from ._notices import Notices
from ._tokens import Rendered, Span, split_ids

__all__ = ["ImageAdapter", "ImageTraits"]

SHRINKING_ATTEMPTS = 8
"""Sizes tried until a row fits: processors round sizes to whole patches."""

TOKEN_TENSORS = frozenset(
    {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"}
)
"""What a processor returns for tokens; the adapter makes these itself."""


@dataclass(frozen=True, kw_only=True)
class ImageTraits:
    """What a family with images states about its processor and its models.

    Attributes:
        image_keys: Tensors that the processor returns for images and that the models take.
        placeholder: What stands for an image in a prompt without chat template; the processor
            expands the image token in it.
        token_types: Name of a model input that marks image tokens with 1; None where the model
            finds them by itself.
        resizable: Smaller images are fewer tokens.
        sends_positions: Whether the model is given one position a token; False for models that
            count positions in several dimensions and do it themselves.
    """

    image_keys: frozenset[str]
    placeholder: str
    token_types: str | None = None
    resizable: bool = True
    sends_positions: bool = True


class ImageAdapter:
    """Rows with any number of images, through the model's own processor and chat template.

    Args:
        processor: The model's processor.
        image_token_id: Id of the token that the processor repeats for an image's features.
        traits: What the family states.
        options: What the user says.
        limits: The sizes of the model that a row must fit.
    """

    def __init__(
        self,
        processor: Any,
        *,
        image_token_id: int,
        traits: ImageTraits,
        options: AdapterOptions,
        limits: ModelLimits | None = None,
    ) -> None:
        self.processor = processor
        self.options = options
        self.traits = traits
        self.limits = limits or ModelLimits()
        self.notices = Notices()
        self.image_token: str = processor.image_token
        self.image_token_id = image_token_id
        self._check_processor()

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows; padding is masked, so any id but the image token will do."""
        return self.limits.pad_token_id(self.processor.tokenizer)

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Return a row as ids and image tensors; see `unidpo_mm.adapter.Adapter.encode`."""
        return self._encode(row, row.responses)

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Return the prompt and its images alone, for generation."""
        return self._encode(row, ())

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take; see `unidpo_mm.adapter.Adapter.check_fit`."""
        self.limits.check(row, group, self.processor.tokenizer)

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0 with one blank image, which runs every part."""
        return as_filler(self.encode(filler_row(images=(BlankImage(),))))

    def forward_inputs(self, batch: GroupBatch) -> Mapping[str, Tensor]:
        """Return ids, mask, and what the model takes of positions, token types and images."""
        positions = {"position_ids": batch.row_position} if self.traits.sends_positions else {}
        return {**batch.token_inputs, **batch.image_inputs, **positions}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        tokenizer = self.processor.tokenizer
        rendered = render(
            row,
            self.processor,
            tokenizer,
            self.options,
            placeholder=self.traits.placeholder,
            responses=responses,
            notices=self.notices,
        )
        self._check_placeholders(row, rendered)
        written = split_ids(rendered, tokenizer)
        span, image_extras, shrunk = self._with_images(row, rendered, written)
        image_tokens = span.prompt_ids.count(self.image_token_id)
        span, cut = fit_responses(
            row,
            span,
            self.options,
            image_tokens=image_tokens,
            resizable=self.traits.resizable,
        )
        return group_of(
            row,
            span,
            cut=cut,
            shrunk=shrunk,
            token_extras=self._token_types(span),
            image_extras=image_extras,
            image_tokens=image_tokens,
            image_token_id=self.image_token_id,
        )

    def _with_images(
        self, row: PreferenceRow, rendered: Rendered, written: Span
    ) -> tuple[Span, Mapping[str, Tensor], int]:
        """Return the span with expanded placeholders and the tensors of the images.

        Images are made smaller until the row fits, where that is asked for; the last value says
        how many were.
        """
        if not row.images:
            return written, {}, 0
        images = [image.open() for image in row.images]
        span, tensors = self._expand(row, rendered, written, images)
        for attempt in range(SHRINKING_ATTEMPTS):
            scale = self._scale(span, len(images))
            if scale is None:
                return span, tensors, len(images) if attempt else 0
            images = [smaller(image, scale) for image in images]
            span, tensors = self._expand(row, rendered, written, images)
        return span, tensors, len(images)

    def _scale(self, span: Span, images: int) -> float | None:
        """Return the factor of the sides of images that lets a row fit; None if it need not."""
        limit = self.options.max_length
        if limit is None or self.options.length_policy != "shrink_image" or not span.response_ids:
            return None
        now = span.prompt_ids.count(self.image_token_id)
        wanted = now - (longest_row(span) - limit)
        return math.sqrt(wanted / now) if images <= wanted < now else None

    def _expand(
        self, row: PreferenceRow, rendered: Rendered, written: Span, images: Sequence[Any]
    ) -> tuple[Span, Mapping[str, Tensor]]:
        """Return the span with expanded placeholders, and the tensors of the images."""
        try:
            encoded = self.processor(
                text=rendered.prompt,
                images=[list(images)],  # one text, all its images
                add_special_tokens=False,  # those that belong there are put in front below
                return_tensors="pt",
            )
        except Exception as error:  # processors raise what they like
            raise self._refused(row, images, error) from error
        self._check_tensors(encoded)
        tensors = {name: encoded[name] for name in self.traits.image_keys if name in encoded}
        prompt_ids = [*written.first_ids, *encoded["input_ids"][0].tolist()]
        return dataclasses.replace(written, prompt_ids=prompt_ids), tensors

    def _refused(self, row: PreferenceRow, images: Sequence[Any], error: Exception) -> DataError:
        """Return the error of a row that the processor refuses, for an image if one is to blame.

        Each image is tried alone: for example one whose sides differ too much.
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
        problem = f"the model's processor refuses the row with its images ({names}): {text}"
        remedy = "Replace the image, take special tokens out of the text, or remove the row"
        return DataError(Problem(where, problem, remedy))

    def _token_types(self, span: Span) -> Mapping[str, tuple[Tensor, ...]]:
        """Return what marks image tokens; answers have none."""
        if self.traits.token_types is None:
            return {}
        prompt = (torch.tensor(span.prompt_ids) == self.image_token_id).long()
        answers = (torch.zeros(len(ids), dtype=torch.int64) for ids in span.response_ids)
        return {self.traits.token_types: (prompt, *answers)}

    def _check_processor(self) -> None:
        """Refuse a processor that belongs to another model.

        Raises:
            ModelError: If its image token is not the model's, or its images are others.
        """
        own = self.processor.tokenizer.convert_tokens_to_ids(self.image_token)
        names = set(self.processor.image_processor.model_input_names)
        found = None
        if own != self.image_token_id:
            found = f"its '{self.image_token}' is token {own}, the model's {self.image_token_id}"
        elif not names <= self.traits.image_keys:
            found = f"it gives {', '.join(sorted(names - self.traits.image_keys))} for an image"
        if found is not None:
            name = type(self.processor).__name__
            remedy = "Pass the model's own processor, or leave it out"
            problem = Problem("processing_class", f"{name} is of another model: {found}", remedy)
            raise ModelError(problem)

    def _check_tensors(self, encoded: Mapping[str, Any]) -> None:
        """Refuse a processor whose image tensors would not reach the model.

        Raises:
            ModelError: If it returns a tensor that the family does not pass on.
        """
        lost = sorted(encoded.keys() - self.traits.image_keys - TOKEN_TENSORS)
        if lost:
            problem_text = (
                f"{type(self.processor).__name__} returns {', '.join(lost)}, which this model "
                "family does not pass to the model"
            )
            remedy = "Choose another family in model.adapter, or null to detect it"
            raise ModelError(Problem("model.adapter", problem_text, remedy))

    def _check_placeholders(self, row: PreferenceRow, rendered: Rendered) -> None:
        found = rendered.prompt.count(self.image_token)
        if found != len(row.images):
            message = f"the rendered prompt has {found} placeholders for {len(row.images)} images"
            remedy = f"Write '{self.image_token}' only where an image stands"
            raise DataError(Problem(f"{row.where}, field 'prompt'", message, remedy))

"""LLaVA-style models: LLaVA 1.5, LLaVA-NeXT and LLaVA-OneVision."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import EncodedGroup, GroupBatch, PreferenceRow, Response

from ._conversation import Rendered, fit_responses, render, split_ids
from ._groups import as_filler, filler_row, group_of
from ._pictures import BlankPicture

__all__ = ["ADAPTER", "LlavaAdapter"]

MODEL_TYPES = ("llava", "llava_next", "llava_onevision")

IMAGE_KEYS = frozenset({"pixel_values", "image_sizes", "batch_num_images"})
"""What the processors of the family return for pictures, and what the models take."""


class LlavaAdapter:
    """Rows with any number of pictures, through the model's own processor and chat template."""

    def __init__(self, processor: Any, config: Any, options: AdapterOptions) -> None:
        self.processor = processor
        self.options = options
        self.image_token: str = processor.image_token
        self.image_token_id = int(config.image_token_id)

    @property
    def pad_token_id(self) -> int:
        """The id that fills rows; padding is masked, so any id but the placeholder will do."""
        tokenizer = self.processor.tokenizer
        pad = tokenizer.pad_token_id
        return int(pad if pad is not None else tokenizer.eos_token_id or 0)

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Returns a row as ids and picture tensors; see `unidpo_mm.adapter.Adapter.encode`."""
        return self._encode(row, row.responses)

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Returns the prompt and its pictures alone, for generation."""
        return self._encode(row, ())

    def filler(self) -> EncodedGroup:
        """Returns a short group of weight 0 with one blank picture, which runs every part."""
        return as_filler(self.encode(filler_row(images=(BlankPicture(),))))

    def forward_inputs(self, batch: GroupBatch) -> Mapping[str, Tensor]:
        """Returns ids, mask, positions, and the picture tensors where the batch has pictures."""
        return {
            **batch.token_inputs,
            **batch.image_inputs,
            "position_ids": batch.row_position,
        }

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of generated ids."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        tokenizer = self.processor.tokenizer
        rendered = render(
            row,
            self.processor,
            tokenizer,
            self.options,
            image_token=self.image_token,
            responses=responses,
        )
        self._check_placeholders(row, rendered)
        span = split_ids(rendered, tokenizer)
        image_extras: Mapping[str, Tensor] = {}
        if row.images:
            prompt_ids, image_extras = self._expand(row, rendered)
            kept = len(prompt_ids) - span.merged
            span = dataclasses.replace(span, prompt_ids=prompt_ids[:kept])
        image_tokens = span.prompt_ids.count(self.image_token_id)
        span, cut = fit_responses(row, span, self.options, image_tokens=image_tokens)
        return group_of(
            row,
            span,
            cut=cut,
            image_extras=image_extras,
            image_tokens=image_tokens,
            image_token_id=self.image_token_id,
        )

    def _expand(
        self, row: PreferenceRow, rendered: Rendered
    ) -> tuple[list[int], dict[str, Tensor]]:
        """Returns the prompt ids with expanded placeholders, and the tensors of the pictures."""
        encoded = self.processor(
            text=rendered.prompt,
            images=[[image.open() for image in row.images]],  # one text, all its pictures
            add_special_tokens=rendered.add_special_tokens,
            return_tensors="pt",
        )
        tensors = {name: encoded[name] for name in IMAGE_KEYS if name in encoded}
        return encoded["input_ids"][0].tolist(), tensors

    def _check_placeholders(self, row: PreferenceRow, rendered: Rendered) -> None:
        found = rendered.prompt.count(self.image_token)
        if found != len(row.images):
            message = f"the rendered prompt has {found} placeholders for {len(row.images)} pictures"
            remedy = f"Write '{self.image_token}' only where a picture stands"
            raise DataError(Problem(f"{row.where}, field 'prompt'", message, remedy))


def _tiny(folder: Path, *, model_type: str = "llava", seed: int = 0, **sizes: Any) -> Path:
    from ._tiny_llava import build

    return build(folder, model_type=model_type, seed=seed, **sizes)


ADAPTER = AdapterFamily(
    name="llava",
    model_types=MODEL_TYPES,
    serves=lambda config: config.model_type in MODEL_TYPES,
    auto_class="AutoModelForImageTextToText",
    needs_processor=True,
    parts={
        "vision_tower": ("model.vision_tower",),
        "projector": ("model.multi_modal_projector", "model.image_newline"),
        "language_model": ("model.language_model", "lm_head"),
    },
    default_freeze=("vision_tower", "projector"),
    create=LlavaAdapter,
    tiny=_tiny,
)

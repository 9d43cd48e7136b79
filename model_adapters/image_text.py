"""Other vision-language models: InternVL, Gemma 3 and 4, Mistral 3, SmolVLM, PaliGemma and more.

The traits of a type without an entry in the table follow from what its processor returns for an
image; a model of such a type has to pass the conformance check before training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.model_types import ModelType
from unidpo_mm.records import EncodedGroup, ModelInputs, PreferenceRow

from ._chat_template import template_of
from ._image_adapter import ImageAdapter, ImageTraits
from ._image_sizing import with_size_limits
from ._image_start import unknown_placeholder
from ._image_text_probe import probed_traits
from ._image_text_traits import TYPES, TypeTraits, why_unserved
from ._images import placeholder_token
from ._model_types import image_type
from ._videos import VideoTraits

__all__ = ["ADAPTER"]


class ImageTextAdapter(ImageAdapter):
    """An adapter for any model type with an entry in the table of traits."""

    def __init__(
        self, processor: Any, config: Any, kind: TypeTraits, options: AdapterOptions
    ) -> None:
        self.kind = kind
        image_token = placeholder_token(processor)
        traits = ImageTraits(
            image_keys=frozenset(kind.image_keys),
            placeholder=kind.placeholder.format(image_token),
            token_types=kind.token_types,
            resizable=kind.sizing.shrinks,
            sends_positions=kind.sends_positions,
            unit_key=kind.unit_key,
            dropped=kind.dropped,
            rounds_pixels=kind.rounds_pixels,
            replaces_image_token=kind.replaces_image_token,
            video=_video_traits(processor, kind),
        )
        super().__init__(processor, config, traits, options)

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return the inputs with the tensors in the shapes that the model takes."""
        return self._in_model_shapes(super().forward_inputs(inputs))

    def generation_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return the inputs of `generate` with the tensors in the shapes that the model takes."""
        return self._in_model_shapes(super().generation_inputs(inputs))

    def _in_model_shapes(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        joined = self.kind.joined_last & inputs.keys()
        return {
            **inputs,
            **{name: inputs[name].movedim(0, -1).unsqueeze(0).contiguous() for name in joined},
        }

    def _encode(self, row: PreferenceRow, responses: Any) -> EncodedGroup:
        if self.kind.needs_images and not row.images:
            problem = "the row has no image, and this model does not accept text alone"
            remedy = "Add an image, remove the row, or choose another model"
            raise DataError(Problem(f"{row.where}, field 'images'", problem, remedy))
        return super()._encode(row, responses)

    def _media_tensors(self, encoded: Mapping[str, Any]) -> Mapping[str, Tensor]:
        tensors = super()._media_tensors(encoded)
        joined = self.kind.joined_last & tensors.keys()
        return {**tensors, **{name: tensors[name][0].movedim(-1, 0) for name in joined}}

    def _token_types(self, span: Any) -> Mapping[str, tuple[Tensor, ...]]:
        kind = self.kind
        return {
            name: (
                prompt if kind.marks_images else torch.zeros_like(prompt),
                *(torch.full_like(response, kind.response_type) for response in responses),
            )
            for name, (prompt, *responses) in super()._token_types(span).items()
        }

    def _check_names(self) -> None:
        """Check nothing: the processor is compared with the model when it encodes an image.

        The token in the text and that of the features may differ, and some image processors list
        tensors that the processor never returns.
        """


def _video_traits(processor: Any, kind: TypeTraits) -> VideoTraits | None:
    """Return the properties for videos; `None` if they are not supported."""
    if not kind.videos or getattr(processor, "video_processor", None) is None:
        return None
    return VideoTraits(
        placeholder=processor.video_token,
        equal_in_row=True,
        with_images=kind.videos_with_images,
    )


def _create(processor: Any, config: Any, options: AdapterOptions) -> ImageTextAdapter:
    if (reason := why_unserved(config)) is not None:
        problem = f"the family 'image_text' does not serve '{config.model_type}': {reason}"
        remedy = f"Choose a model of another type ({', '.join(TYPES)})"
        raise ModelError(Problem("model.adapter", problem, remedy))
    kind = TYPES.get(config.model_type)
    if kind is None:
        if template_of(processor, processor.tokenizer) is None:
            raise unknown_placeholder(processor)
        kind = probed_traits(processor, config)
    processor = with_size_limits(processor, options, kind.sizing, config.model_type)
    return ImageTextAdapter(processor, config, kind, options)


def _tiny(folder: Path, *, model_type: str = "internvl", seed: int = 0, **sizes: Any) -> Path:
    from ._tiny_image_text import build

    return build(folder, model_type=model_type, seed=seed, **sizes)


def _describe(name: str) -> ModelType:
    kind = TYPES[name]
    return image_type(name, kind.sizing, videos=bool(kind.videos), needs_images=kind.needs_images)


ADAPTER = AdapterFamily(
    name="image_text",
    model_types=tuple(TYPES),
    serves=lambda config: why_unserved(config) is None,
    refuses=why_unserved,
    auto_class="AutoModelForImageTextToText",
    needs_processor=True,
    parts={"vision_tower": (), "projector": (), "language_model": ()},  # read from the model
    default_freeze=("vision_tower", "projector"),
    create=_create,
    tiny=_tiny,
    describe=_describe,
)

"""Text models: any causal language model with a tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import DataError, ModelError, Problem
from unidpo_mm.model_types import ModelType
from unidpo_mm.records import EncodedGroup, ModelInputs, PreferenceRow, Response

from ._base import BaseAdapter, group_of
from ._conversation import fit_responses
from ._limits import ModelLimits
from ._tokens import split_ids

__all__ = ["ADAPTER", "TextAdapter"]

AUDIO_SETTINGS = (
    "audio audio_config audio_encoder audio_encoder_config audio_processor audio_tower "
    "codec_config mm_audio_tower speech_config speech_encoder speech_encoder_config"
).split()
"""Settings that only models of audio have, also those with custom code."""


class TextAdapter(BaseAdapter):
    """An adapter for rows without images, with a tokenizer as its processor."""

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return ids, mask and positions."""
        return {**inputs.tokens, "position_ids": inputs.row_position}

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        for kind, media in (("image", row.images), ("video", row.videos)):
            if media:
                problem = f"the row has {len(media)} {kind}(s), and this model has no vision tower"
                remedy = f"Choose a vision-language model, or remove the {kind}s"
                raise DataError(Problem(f"{row.where}, field '{kind}s'", problem, remedy))
        span = split_ids(self._render(row, responses), self.tokenizer)
        span, cut = fit_responses(row, span, self.options)
        return group_of(row, span, cut=cut)


def _refuse_image_options(options: AdapterOptions) -> None:
    """Refuse the options of images."""
    names = ("image_min_size", "image_max_size", "video_max_pixels")
    problems = [
        Problem(f"model.{name}", f"it is {value} and a text model has no {name[:5]}s", "Remove it")
        for name in names
        if (value := getattr(options, name)) is not None
    ]
    if options.length_policy == "shrink_image":
        remedy = "Choose truncate_response, drop or error"
        problems.append(Problem("data.length_policy", "a text model has no images", remedy))
    if problems:
        raise ModelError(problems)


def _create(tokenizer: Any, config: Any, options: AdapterOptions) -> TextAdapter:
    _refuse_image_options(options)
    return TextAdapter(tokenizer, options, ModelLimits.of(config))


def _refuses(config: Any) -> str | None:
    """Return why a model is not served; `None` if it is."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder-decoder model, and only decoder models are supported"
    if _processes_audio(config):
        return "it processes audio, which is not supported yet"
    if _serves(config):
        return None
    if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "it is an encoder, whose tokens also attend to later ones"
    return "transformers does not offer it as a causal language model"


def _processes_audio(config: Any) -> bool:
    """Return whether a model processes audio, and no images.

    Its audio processor would be missing in every checkpoint, and its audio tower would count as a
    part of the language model. The core decides about models with images.
    """
    if getattr(config, "vision_config", None) is not None:
        return False
    return any(getattr(config, name, None) is not None for name in AUDIO_SETTINGS)


def _serves(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    if _processes_audio(config):
        return False
    if "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return True
    if getattr(config, "is_encoder_decoder", False):
        return False
    # encoders such as BERT can be loaded as causal models, but would attend to later tokens
    encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return causal and (not encoder or bool(getattr(config, "is_decoder", False)))


def _tiny(folder: Path, *, model_type: str = "llama", seed: int = 0, **sizes: Any) -> Path:
    from transformers import AutoConfig, AutoModelForCausalLM

    from ._tiny import save_tokenizer, tiny_text

    tokenizer = save_tokenizer(folder)
    settings = {**tiny_text(tokenizer), **sizes}
    config = AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


ADAPTER = AdapterFamily(
    name="text",
    model_types=(),
    serves=_serves,
    refuses=_refuses,
    auto_class="AutoModelForCausalLM",
    needs_processor=False,
    parts={"language_model": ("",)},
    default_freeze=(),
    create=_create,
    tiny=_tiny,
    describe=lambda name: ModelType(name=name, title="any causal language model"),
)

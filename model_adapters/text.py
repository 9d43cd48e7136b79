"""Text models: any causal language model with a tokenizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unidpo_mm.adapter import AdapterFamily, AdapterOptions
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import EncodedGroup, ModelInputs, PreferenceRow, Response

from ._conversation import fit_responses, render
from ._groups import as_filler, filler_row, group_of
from ._images import refuse_pixel_limits
from ._limits import ModelLimits
from ._notices import Notices
from ._tokens import split_ids

__all__ = ["ADAPTER", "TextAdapter"]


class TextAdapter:
    """An adapter for rows without images.

    Args:
        tokenizer: The tokenizer.
        options: The options of the run.
        limits: The sizes of the model that a row must fit.
    """

    def __init__(
        self, tokenizer: Any, options: AdapterOptions, limits: ModelLimits | None = None
    ) -> None:
        self.processor = tokenizer
        self.options = options
        self.limits = limits or ModelLimits()
        self.notices = Notices()

    @property
    def pad_token_id(self) -> int:
        """The id of padding, which is masked: any id with an embedding."""
        return self.limits.pad_token_id(self.processor)

    def encode(self, row: PreferenceRow) -> EncodedGroup:
        """Encode a row as ids; see `unidpo_mm.adapter.Adapter.encode`."""
        return self._encode(row, row.responses)

    def encode_prompt(self, row: PreferenceRow) -> EncodedGroup:
        """Encode the prompt without responses, for generation."""
        return self._encode(row, ())

    def check_fit(self, row: PreferenceRow, group: EncodedGroup) -> None:
        """Refuse a row that the model cannot take; see `unidpo_mm.adapter.Adapter.check_fit`."""
        self.limits.check(row, group, self.processor)

    def filler(self) -> EncodedGroup:
        """Return a short group of weight 0."""
        return as_filler(self.encode(filler_row(images=())))

    def forward_inputs(self, inputs: ModelInputs) -> Mapping[str, Tensor]:
        """Return ids, mask and positions."""
        return {**inputs.tokens, "position_ids": inputs.row_position}

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids."""
        return str(self.processor.decode(ids, skip_special_tokens=True)).strip()

    def _encode(self, row: PreferenceRow, responses: Sequence[Response]) -> EncodedGroup:
        if row.images:
            problem = f"the row has {len(row.images)} image(s), and this model has no vision tower"
            remedy = "Choose a vision-language model, or remove the images"
            raise DataError(Problem(f"{row.where}, field 'images'", problem, remedy))
        tokenizer = self.processor
        rendered = render(
            row,
            tokenizer,
            tokenizer,
            self.options,
            placeholder=None,
            responses=responses,
            notices=self.notices,
        )
        span = split_ids(rendered, tokenizer)
        span, cut = fit_responses(row, span, self.options)
        return group_of(row, span, cut=cut)


def _create(tokenizer: Any, config: Any, options: AdapterOptions) -> TextAdapter:
    refuse_pixel_limits(options, "a text model has no images")
    return TextAdapter(tokenizer, options, ModelLimits.of(config))


def _serves(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

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

    from ._tiny import TINY_TEXT, save_tokenizer

    tokenizer = save_tokenizer(folder)
    config = AutoConfig.for_model(
        model_type,
        **{**TINY_TEXT, "vocab_size": len(tokenizer), **sizes},
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


ADAPTER = AdapterFamily(
    name="text",
    model_types=(),
    serves=_serves,
    auto_class="AutoModelForCausalLM",
    needs_processor=False,
    parts={"language_model": ("",)},
    default_freeze=(),
    create=_create,
    tiny=_tiny,
)

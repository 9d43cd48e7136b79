"""Quantized weights: which modules have them, and that evaluation does not convert them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..adapter import AdapterFamily
from .model_parts import with_model_parts

__all__ = ["keep_quantized_weights", "only_language_model"]

LANGUAGE_MODEL = "language_model"

SKIPPED_MODULES = {"bitsandbytes": "llm_int8_skip_modules", "torchao": "modules_to_not_convert"}
"""Quantization method -> its setting for modules that keep their weights."""


def only_language_model(
    quantization: Any, family: AdapterFamily, empty_model: Callable[[], nn.Module]
) -> Any:
    """Return a quantization that skips the head and all parts but the language model.

    These parts are small, and images would lose more than text does.

    Args:
        quantization: The settings of transformers; objects and settings with such a list stay.
        family: The family of the model.
        empty_model: Returns the model without its weights, whose parts are looked at.
    """
    if not isinstance(quantization, Mapping):
        return quantization
    setting = SKIPPED_MODULES.get(quantization.get("quant_method", "bitsandbytes"))
    if setting is None or setting in quantization:
        return quantization
    parts = with_model_parts(family, empty_model()).parts
    others = {p for part, names in parts.items() if part != LANGUAGE_MODEL for p in names}
    return {**quantization, setting: ["lm_head", *sorted(others)]}


def keep_quantized_weights(model: nn.Module) -> None:
    """Keep the layout of 4-bit weights in evaluation.

    On CPUs with bfloat16 units, bitsandbytes would otherwise convert them in the first evaluation,
    with rounded scales, so that the same weights would give other numbers than before.
    """
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False

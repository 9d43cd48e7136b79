"""Inputs of LoRA layers, which autocast and PEFT would both convert.

The weights of a LoRA adapter are trained in float32. PEFT converts the input of each LoRA layer to
their number format, and autocast converts it back to half precision for the product: two copies of
every activation, one of which is kept for the backward pass. Under autocast, the input stays as it
is; the product gets the same numbers.
"""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["convert_inputs_once"]


def convert_inputs_once(model: nn.Module) -> None:
    """Let the LoRA layers of a PEFT model leave the conversion of their inputs to autocast.

    Outside of autocast, for example while text is generated, PEFT still converts them. Whether
    autocast is enabled is looked up in every call, so a checkpointed layer computes the same twice.
    """
    from peft.tuners.lora import Linear

    for module in model.modules():
        if isinstance(module, Linear) and not module.lora_variant:  # DoRA uses the input itself
            layer: Any = module
            layer._cast_input_dtype = _converted  # not a method: a copy of the model can share it


def _converted(x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the input of a LoRA layer, converted unless autocast does it."""
    if x is None or torch.is_autocast_enabled(x.device.type):
        return x
    return x.to(dtype)

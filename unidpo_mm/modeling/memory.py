"""Activation checkpointing that stays out of frozen parts."""

from collections.abc import Mapping
from typing import Any

from torch import nn

__all__ = ["enable_checkpointing"]


def enable_checkpointing(
    model: nn.Module, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Switches on checkpointing for the layers that gradients flow through.

    Layers before the first trainable weight need no backward pass, so checkpointing them would
    only compute them twice; the hooks that make inputs require gradients, which would
    back-propagate through a frozen vision tower for nothing, are never set: the non-reentrant
    checkpoint does not need them.

    Args:
        model: A transformers or PEFT model; its parameters already say what trains.
        kwargs: Options of `torch.utils.checkpoint.checkpoint`.
        **options: Further options of transformers' `activation_checkpointing_enable`.
    """
    inner: Any = getattr(model, "get_base_model", lambda: model)()
    settings = {**(kwargs or {}), "use_reentrant": False}
    if hasattr(inner, "activation_checkpointing_enable"):
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs=settings, **options)
    else:  # older transformers
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    inner.disable_input_require_grads()
    for tower in _frozen_towers(inner):
        for module in tower.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False  # type: ignore[assignment] # a plain flag


def _frozen_towers(model: Any) -> list[nn.Module]:
    """Returns the parts beside the decoder, such as a vision tower, that do not train."""
    base, decoder = getattr(model, model.base_model_prefix, model), model.get_decoder()
    if decoder is base:
        return []
    return [
        child
        for child in base.children()
        if child is not decoder and not any(p.requires_grad for p in child.parameters())
    ]

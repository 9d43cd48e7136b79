"""Activation checkpointing that stays out of frozen parts."""

from collections.abc import Iterator, Mapping
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
        kwargs: Options of `torch.utils.checkpoint.checkpoint`; `use_reentrant` is always false.
        **options: Further options of transformers' `activation_checkpointing_enable`.
    """
    inner: Any = getattr(model, "get_base_model", lambda: model)()
    settings = {**(kwargs or {}), "use_reentrant": False}
    if hasattr(inner, "activation_checkpointing_enable"):
        inner.activation_checkpointing_enable(activation_checkpointing_kwargs=settings, **options)
    else:  # older transformers
        inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)
    inner.disable_input_require_grads()
    for layer in _layers_without_backward(inner):
        layer.gradient_checkpointing = False  # type: ignore[assignment] # a plain flag


def _layers_without_backward(model: Any) -> Iterator[nn.Module]:
    """Yields what can checkpoint, beside the decoder, and comes before the first trainable weight.

    A tower's layers are looked at one by one: in some models the projector, which may train, is
    the last piece of the tower. Modules are registered in the order in which they run.
    """
    base, decoder = getattr(model, model.base_model_prefix, model), model.get_decoder()
    if decoder is base:
        return
    for tower in (child for child in base.children() if child is not decoder):
        for module in tower.modules():
            inside = [parameter.requires_grad for parameter in module.parameters()]
            if not any(inside) and hasattr(module, "gradient_checkpointing"):
                yield module
            if any(inside) and not any(True for _ in module.children()):
                break  # gradients flow through everything that comes later

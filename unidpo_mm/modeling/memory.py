"""Activation checkpointing that stays out of frozen parts, for as few layers as memory asks for.

A checkpointed layer keeps its input and is computed twice, any other keeps all its activations
until its backward pass. The last layers are the ones to spare: theirs are gone again when the first
checkpointed layer is computed for the second time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.last_layer import decoder_layers

__all__ = [
    "LayerMemory",
    "checkpoint_first",
    "enable_checkpointing",
    "measure_layers",
]


@dataclass(frozen=True)
class LayerMemory:
    """What the decoder's layers keep for the backward pass of one batch.

    Attributes:
        tokens: Tokens of the batch, padding included.
        kept: Bytes that each layer keeps, in their order.
        inputs: Bytes that a checkpointed layer keeps.
    """

    tokens: int
    kept: tuple[int, ...]
    inputs: int

    def layers_to_checkpoint(self, budget: int, *, tokens: int) -> int:
        """Return how many of the first layers have to be checkpointed.

        Args:
            budget: Bytes that activations may take.
            tokens: Tokens of the largest batch to come.
        """
        scale = tokens / self.tokens
        counts = range(len(self.kept) + 1)
        return next((n for n in counts if self.needed(n) * scale <= budget), len(self.kept))

    def needed(self, count: int) -> int:
        """Return the bytes that the layers take where the first `count` are checkpointed."""
        spared = sum(self.kept[count:])
        again = max(self.kept[:count], default=0)  # while a layer is computed again
        return count * self.inputs + max(spared, again)


def measure_layers(model: nn.Module, forward: Callable[[], Tensor], tokens: int) -> LayerMemory:
    """Run a forward pass and counts what each layer of the decoder would keep; keeps nothing.

    Args:
        model: A transformers or PEFT model without checkpointing.
        forward: Runs one batch through it, with gradients on.
        tokens: Tokens of that batch.
    """
    meter = _Meter()
    handles = []
    for layer in decoder_layers(model):
        handles.append(layer.register_forward_pre_hook(meter.start, with_kwargs=True))
        handles.append(layer.register_forward_hook(meter.stop))
    try:
        with torch.autograd.graph.saved_tensors_hooks(meter.pack, _unpack):
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return LayerMemory(tokens, tuple(meter.kept), meter.inputs)


class _Meter:
    """Counts the storages that autograd keeps inside a layer, each once, weights left out."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.inputs = 0
        self._alive: dict[int, Tensor] | None = None
        self._weights: set[int] = set()

    def start(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self._alive = {}
        # asked now: FSDP gathers a layer's weights just before it runs
        self._weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        first = args[0] if args else kwargs["hidden_states"]
        self.inputs = first.untyped_storage().nbytes()

    def stop(self, layer: nn.Module, args: Any, output: Any) -> None:
        alive = self._alive or {}
        self.kept.append(sum(tensor.untyped_storage().nbytes() for tensor in alive.values()))
        self._alive = None

    def pack(self, tensor: Tensor) -> Tensor | None:
        if self._alive is None:
            return tensor  # outside the layers little is kept, and a frozen head asks for it
        place = tensor.untyped_storage().data_ptr()
        if place not in self._weights:
            self._alive[place] = tensor  # alive until the layer ends, so no other takes its place
        return None


def _unpack(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise RuntimeError("layers that are only measured have no backward pass")
    return tensor


def checkpoint_first(model: nn.Module, count: int) -> None:
    """Leaves checkpointing to the first `count` layers of the decoder; it must be enabled."""
    for number, layer in enumerate(decoder_layers(model)):
        layer.gradient_checkpointing = number < count


def enable_checkpointing(
    model: nn.Module, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Switch on checkpointing for the layers that gradients flow through, but the last one.

    The last layer would be computed again as soon as it was computed: what it keeps is needed at
    once, and is gone before the next layer is computed again.

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
    for layer in (*_layers_without_backward(inner), *decoder_layers(inner)[-1:]):
        layer.gradient_checkpointing = False


def _layers_without_backward(model: Any) -> Iterator[nn.Module]:
    """Yield what can checkpoint, beside the decoder, and comes before the first trainable weight.

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

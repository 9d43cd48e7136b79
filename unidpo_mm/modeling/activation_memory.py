"""Activation checkpointing for as few layers as the activation memory requires.

A checkpointed layer keeps its input only and is computed twice; any other layer keeps all its
activations until its backward pass. The last layers are the best ones not to checkpoint: their
activations are freed before the first checkpointed layer is computed again. Frozen parts that need
no backward pass are never checkpointed.
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
    """The activations that the decoder layers keep for the backward pass of one batch.

    Attributes:
        tokens: Tokens of the batch, padding included.
        kept: Bytes that each layer keeps, in the order of the layers.
        inputs: Bytes that a checkpointed layer keeps.
    """

    tokens: int
    kept: tuple[int, ...]
    inputs: int

    def layers_to_checkpoint(self, budget: int, *, tokens: int) -> int:
        """Return how many of the first layers must be checkpointed.

        Args:
            budget: Maximum bytes of activations.
            tokens: Tokens of the largest expected batch.
        """
        scale = tokens / self.tokens
        counts = range(len(self.kept) + 1)
        return next((n for n in counts if self.needed(n) * scale <= budget), len(self.kept))

    def needed(self, count: int) -> int:
        """Return the bytes of all layers if the first `count` are checkpointed."""
        others = sum(self.kept[count:])
        recomputed = max(self.kept[:count], default=0)  # one layer at a time
        return count * self.inputs + max(others, recomputed)


def measure_layers(model: nn.Module, forward: Callable[[], Tensor], tokens: int) -> LayerMemory:
    """Measure what each layer of the decoder would keep, by a forward pass that keeps nothing.

    Args:
        model: A transformers or PEFT model without checkpointing.
        forward: Runs one batch through it, with gradients enabled.
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
    """A counter of the storages that autograd keeps inside a layer, except weights."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.inputs = 0
        self._alive: dict[int, Tensor] | None = None
        self._weights: set[int] = set()

    def start(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        self._alive = {}
        # not earlier: FSDP gathers the weights of a layer just before it runs
        self._weights = {p.untyped_storage().data_ptr() for p in layer.parameters()}
        first = args[0] if args else kwargs["hidden_states"]
        self.inputs = first.untyped_storage().nbytes()

    def stop(self, layer: nn.Module, args: Any, output: Any) -> None:
        alive = self._alive or {}
        self.kept.append(sum(tensor.untyped_storage().nbytes() for tensor in alive.values()))
        self._alive = None

    def pack(self, tensor: Tensor) -> Tensor | None:
        if self._alive is None:
            return tensor  # little is kept outside the layers, and a frozen head needs it
        address = tensor.untyped_storage().data_ptr()
        if address not in self._weights:
            self._alive[address] = tensor  # kept until the layer ends, so the address stays unique
        return None


def _unpack(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise RuntimeError("a measured forward pass has no backward pass")
    return tensor


def checkpoint_first(model: nn.Module, count: int) -> None:
    """Restrict checkpointing, which must be enabled, to the first `count` layers of the decoder."""
    for number, layer in enumerate(decoder_layers(model)):
        layer.gradient_checkpointing = number < count


def enable_checkpointing(
    model: nn.Module, kwargs: Mapping[str, Any] | None = None, **options: Any
) -> None:
    """Enable checkpointing of the layers that gradients flow through, except the last one.

    The backward pass starts with the last layer, so checkpointing it would only compute it twice.
    The same holds for layers before the first trainable weight, which have no backward pass. The
    hooks that make inputs require gradients are never set: the non-reentrant checkpoint does not
    need them, and they would cause a backward pass through a frozen vision tower.

    The parameters already have their `requires_grad`; `use_reentrant` is always false.
    """
    inner: Any = getattr(model, "get_base_model", lambda: model)()
    settings = {**(kwargs or {}), "use_reentrant": False}
    inner.activation_checkpointing_enable(activation_checkpointing_kwargs=settings, **options)
    inner.disable_input_require_grads()
    for layer in (*_layers_without_backward(inner), *decoder_layers(inner)[-1:]):
        layer.gradient_checkpointing = False


def _layers_without_backward(model: Any) -> Iterator[nn.Module]:
    """Yield modules outside the decoder that can be checkpointed and precede all trainable weights.

    Modules of a tower are examined one by one, in the order they are registered and run: in some
    models the projector, which may train, is the last module of the tower.
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
                break  # gradients flow through all later modules

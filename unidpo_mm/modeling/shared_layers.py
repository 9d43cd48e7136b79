"""Decoder layers that policy and reference share, run once for both.

If a LoRA adapter trains in the upper layers only and the reference is the same model without it or
with another one, then the hidden states below the first trained layer are the same in both passes
over a batch. The first pass records them and the second starts from them. The numbers are equal to
the bit, because they are the same tensors.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from ..kernels.last_layer import decoder_layers
from .logp_model import LogpModel, unwrap_peft
from .peft_models import adapter_tensors
from .references.kinds import FrozenLora, LoraOff, Reference

__all__ = ["SharedLayers", "shared_layers"]


class SharedLayers:
    """The first layers of a decoder, which run once inside `once`.

    Args:
        layers: The layers in execution order, at least one. Each returns the hidden states.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self.layers = tuple(layers)

    def __len__(self) -> int:
        return len(self.layers)

    @contextmanager
    def once(self) -> Iterator[None]:
        """Run the layers in the first pass only; all passes inside must be over the same batch."""
        recorded: list[Tensor] = []
        *lower, last = self.layers
        with ExitStack() as stack:
            for layer in lower:
                stack.enter_context(_replaced(layer, lambda run: _skip_after(recorded, run)))
            stack.enter_context(_replaced(last, lambda run: _record(recorded, run)))
            yield


def shared_layers(logp_model: LogpModel, reference: Reference | None) -> SharedLayers | None:
    """Return the layers that policy and reference share; `None` if there are none.

    Args:
        logp_model: The policy, without dropout and not sharded.
        reference: The reference.
    """
    if not isinstance(reference, LoraOff | FrozenLora):
        return None
    model = unwrap_peft(logp_model.model)
    settings = model.config.get_text_config()
    layers = decoder_layers(model)
    if len(layers) != settings.num_hidden_layers or getattr(settings, "num_kv_shared_layers", 0):
        return None  # keys and values of these layers are read by layers above them
    different = {id(tensor) for _, _, tensor in adapter_tensors(model)}
    different |= {id(weight) for weight in model.parameters() if weight.requires_grad}

    def differs(module: nn.Module) -> bool:
        return any(id(tensor) in different for tensor in module.state_dict(keep_vars=True).values())

    first = next((number for number, layer in enumerate(layers) if differs(layer)), len(layers))
    above = {id(tensor) for layer in layers[first:] for tensor in layer.parameters()}
    above |= {id(tensor) for tensor in model.get_output_embeddings().parameters()}
    above -= {id(tensor) for tensor in model.get_input_embeddings().parameters()}  # may be tied
    if first == 0 or not different <= above:
        return None
    return SharedLayers(layers[:first])


@contextmanager
def _replaced(layer: Any, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Replace the `forward` of a layer inside the block."""
    replaced = vars(layer).get("forward")
    layer.forward = wrap(layer.forward)
    try:
        yield
    finally:
        del layer.forward
        if replaced is not None:
            layer.forward = replaced


def _skip_after(recorded: Sequence[Tensor], run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a forward that passes its input on once the last layer has been recorded."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states if recorded else run(hidden_states, *args, **kwargs)

    return forward


def _record(recorded: list[Tensor], run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a forward that records its output the first time and returns it every time."""

    def forward(*args: Any, **kwargs: Any) -> Tensor:
        if not recorded:
            recorded.append(run(*args, **kwargs))
        return recorded[0]

    return forward

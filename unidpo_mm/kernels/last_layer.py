"""In the last layer the prompt gives keys and values and nothing else: what it says, nobody reads.

Log-probabilities are read off the last prompt token and the answers. Everything in the last layer
that works position by position (queries, output projection, feed-forward) therefore runs for those
alone, and puts zeros where the others were. Where a row is mostly image, that is most of a layer.

It happens only where `group_spans` came in place of a mask, in packed rows of plain causal
layers. A checkpointed layer is computed a second time without its own hooks, so what is read is
told to the layer in that argument, and the modules inside learn it from there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .branch_attention import GroupSpan, are_spans

__all__ = ["decoder_layers", "spare_last_layer"]

ATTENTION = "self_attn"
"""What in a layer is given the mask, by transformers' names."""

POSITION_WISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""What works position by position and runs inside attention or after it; a layer may lack some."""


def decoder_layers(model: nn.Module) -> Sequence[Any]:
    """Return the layers of the decoder that can be checkpointed, in the order they run."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    inner: Any = getattr(model, "get_base_model", lambda: model)()
    return [m for m in inner.get_decoder().modules() if isinstance(m, GradientCheckpointingLayer)]


def spare_last_layer(model: Any) -> None:
    """Let the last layer of a transformers model skip what nobody reads of packed rows.

    Args:
        model: Without PEFT around it; LoRA matrices may be inside.
    """
    layers = decoder_layers(model)
    modules = dict(layers[-1].named_modules()) if layers else {}
    if ATTENTION not in modules:
        return
    hooks = _Hooks()
    layers[-1].register_forward_pre_hook(hooks.enter, with_kwargs=True)
    layers[-1].register_forward_hook(hooks.leave)
    modules[ATTENTION].register_forward_pre_hook(hooks.learn, with_kwargs=True)
    for name in POSITION_WISE:
        if name in modules:
            modules[name].register_forward_pre_hook(hooks.gather)
            modules[name].register_forward_hook(hooks.scatter)


class _Hooks:
    """The hooks of one layer; they know which positions are read from its attention on."""

    def __init__(self) -> None:
        self._read: Tensor | None = None
        self._shape: tuple[int, int] = (0, 0)

    def enter(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Tell the layer that of the prompt the last token alone is read."""
        self._read = None
        mask = kwargs.get("attention_mask")
        if mask is None or not are_spans(mask):
            return None
        told = [span._replace(unread=span.prompt - 1) for span in GroupSpan.of(mask)]
        lines = mask.new_tensor([span.as_line(mask.shape[1]) for span in told])
        return args, {**kwargs, "attention_mask": lines}

    def leave(self, layer: nn.Module, args: Any, output: Any) -> None:
        """Forget what is read."""
        self._read = None

    def learn(self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Learn what is read; in the second computation of a checkpointed layer, too."""
        mask = kwargs.get("attention_mask")
        if mask is None or not are_spans(mask):
            self._read = None
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        self._shape = hidden.shape[:2]
        self._read = _positions_read(mask, hidden.shape[1]).to(hidden.device)

    def gather(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Hands in the positions read, [1, R, D] instead of [B, T, D]."""
        if self._read is None:
            return None
        return (args[0].flatten(0, 1)[self._read].unsqueeze(0), *args[1:])

    def scatter(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Put what came out back to its positions, [B, T, D]; experts may add what they chose."""
        if self._read is None:
            return None
        if isinstance(output, tuple):
            return (self.scatter(module, args, output[0]), *output[1:])
        rows, width = self._shape
        wide: Tensor = output.new_zeros(rows * width, output.shape[-1])
        wide = wide.index_copy(0, self._read, output[0])
        return wide.view(rows, width, -1)


def _positions_read(spans: Tensor, width: int) -> Tensor:
    """Return the indices into [B * T] of the positions whose output is read."""
    return torch.cat(
        [
            span.row * width + torch.arange(span.first + span.unread, span.end)
            for span in GroupSpan.of(spans)
        ]
    )

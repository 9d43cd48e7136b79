"""The last decoder layer, computed only at the positions whose output is used.

Log-probs are computed from the outputs at the last prompt token and in the responses. At earlier
prompt tokens, only the keys and values of the last layer are used, not its output. So everything in
that layer that works position by position (queries, output projection, feed-forward) runs for the
used positions only, and the output at all others is zero. In rows that are mostly image tokens this
saves most of a layer.

It applies to packed rows of plain causal layers, where `group_spans` takes the place of the mask. A
checkpointed layer is recomputed without its own hooks, but with those of its inner modules.
Therefore the layer's hook writes the unused positions into the mask argument, where the inner hooks
find them in both computations.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .group_spans import GroupSpan, are_spans
from .short_groups import used_positions

__all__ = ["decoder_layers", "skip_unused_positions"]

ATTENTION = "self_attn"
"""Name of the module in a layer that receives the mask, in transformers."""

POSITION_WISE = ("self_attn.q_proj", "self_attn.o_proj", "mlp")
"""Names of the modules that work position by position; a layer may lack some of them."""


def decoder_layers(model: nn.Module) -> Sequence[Any]:
    """Return the layers of the decoder that can be checkpointed, in execution order."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    inner: Any = getattr(model, "get_base_model", lambda: model)()
    return [m for m in inner.get_decoder().modules() if isinstance(m, GradientCheckpointingLayer)]


def skip_unused_positions(model: Any) -> None:
    """Let the last layer of a transformers model skip unused positions of packed rows.

    Args:
        model: A model that is not wrapped by PEFT; it may contain LoRA layers.
    """
    layers = decoder_layers(model)
    modules = dict(layers[-1].named_modules()) if layers else {}
    if ATTENTION not in modules or _has_hooks(layers[-1]):
        return
    hooks = _Hooks()
    layers[-1].register_forward_pre_hook(hooks.mark_unused, with_kwargs=True)
    layers[-1].register_forward_hook(hooks.reset)
    modules[ATTENTION].register_forward_pre_hook(hooks.read_mask, with_kwargs=True)
    for name in POSITION_WISE:
        if name in modules:
            modules[name].register_forward_pre_hook(hooks.gather)
            modules[name].register_forward_hook(hooks.scatter)


def _has_hooks(layer: nn.Module) -> bool:
    hooks = layer._forward_pre_hooks.values()
    return any(isinstance(getattr(hook, "__self__", None), _Hooks) for hook in hooks)


class _Hooks:
    """The hooks of a layer and its modules, which share the used positions of the current batch."""

    def __init__(self) -> None:
        self._used: Tensor | None = None
        self._shape: tuple[int, int] = (0, 0)

    def mark_unused(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Mark all prompt tokens except the last one as unused, in the mask argument."""
        self._used = None
        mask = kwargs.get("attention_mask")
        if mask is None or not are_spans(mask):
            return None
        spans = [span._replace(unused=span.prompt - 1) for span in GroupSpan.of(mask)]
        lines = mask.new_tensor([span.as_line(mask.shape[1]) for span in spans])
        return args, {**kwargs, "attention_mask": lines}

    def reset(self, layer: nn.Module, args: Any, output: Any) -> None:
        """Forget the positions of this batch."""
        self._used = None

    def read_mask(
        self, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Read the used positions from the mask argument, also when the layer is recomputed."""
        mask = kwargs.get("attention_mask")
        if mask is None or not are_spans(mask):
            self._used = None
            return
        hidden = args[0] if args else kwargs["hidden_states"]
        self._shape = hidden.shape[:2]
        used = used_positions(GroupSpan.of(mask), hidden.shape[1])
        self._used = used.to(hidden.device, non_blocking=True)

    def gather(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Replace the input [B, T, D] with its used positions, [1, R, D]."""
        if self._used is None:
            return None
        return (args[0].flatten(0, 1)[self._used].unsqueeze(0), *args[1:])

    def scatter(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Put the output back at its positions, [B, T, D].

        A mixture of experts may return a tuple, whose first item is the output.
        """
        if self._used is None:
            return None
        if isinstance(output, tuple):
            return (self.scatter(module, args, output[0]), *output[1:])
        rows, width = self._shape
        full: Tensor = output.new_zeros(rows * width, output.shape[-1])
        full = full.index_copy(0, self._used, output[0])
        return full.view(rows, width, -1)

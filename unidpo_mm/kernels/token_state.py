"""Detection of models in which information passes between tokens past the attention mask.

Recurrent layers, linear attention and convolutions along a row carry a state from token to token
that no attention mask can stop; sparse attention selects keys before its mask applies. In a packed
row, one response would then influence the next. How much depends on the weights, and in half
precision it can be below rounding. So the decision follows from the structure of the model, never
from a numerical comparison.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

__all__ = ["why_stateful"]

STATEFUL_KINDS = re.compile(
    r"linear|conv|mamba|ssm|recurrent|rglru|hybrid|rwkv|lightning|delta|retention|lstm"
    r"|compressed|indexed|_sparse",  # these choose or merge keys before a mask applies
    re.IGNORECASE,
)
"""Parts of the layer kinds in a configuration that mix tokens other than by masked attention."""
KIND_LISTS = ("layer_types", "layers_block_type", "layer_block_types", "block_types")
"""Attributes of a configuration that list the kind of each layer."""
STATEFUL_CLASSES = re.compile(
    r"Mamba|Rwkv|Retention|RetNet|DeltaNet|ShortConv|Recurrent|Rg?LRU|Rglru|Lightning"
    r"|LinearAttention|xLSTM|mLSTM|sLSTM|StateSpace|SSM(?![a-z])|Hyena|GatedLinear(?!Unit)",
)
"""Parts of the names of module classes that carry a state."""


def why_stateful(model: Any) -> str | None:
    """Return why packed rows would leak between responses; `None` if only attention mixes tokens.

    Args:
        model: A transformers model.
    """
    sign = next(_signs_of_state(model), None)
    if sign is None:
        return None
    return f"its layers mix tokens past any mask, like a recurrent state ({sign})"


def _signs_of_state(model: Any) -> Iterator[str]:
    """Yield signs of a state in the declarations of the library, the configuration, the modules."""
    decoder = _decoder(model)
    for module in (model, *decoder.modules()):
        if getattr(module, "_is_stateful", False):
            yield f"{type(module).__name__} is stateful"
    text = model.config.get_text_config()
    for name in KIND_LISTS:
        kinds = getattr(text, name, None)
        for kind in kinds if isinstance(kinds, list | tuple) else ():
            if STATEFUL_KINDS.search(str(kind)):
                yield f"layers of kind {kind}"
    for module in decoder.modules():
        kind = type(module).__name__
        if STATEFUL_CLASSES.search(kind) or isinstance(module, nn.RNNBase):
            yield f"layers of class {kind}"
        elif isinstance(module, nn.Conv1d) and max(module.kernel_size) > 1:
            yield "a convolution over neighboring tokens"


def _decoder(model: Any) -> nn.Module:
    """Return the text decoder of a model; towers of other modalities may have convolutions."""
    find = getattr(model, "get_decoder", None)
    decoder = find() if find is not None else None
    return decoder if isinstance(decoder, nn.Module) else model

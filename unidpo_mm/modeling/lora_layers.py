"""LoRA layers with fewer passes over their activations than PEFT's; the weights are the same.

A LoRA layer returns ``W x + s B (A x)``, s being its scaling. PEFT computes the product with B, the
scaling and the sum one after the other, each into a new tensor as large as the output. Here one
matrix product adds to ``W x`` and scales, so two of the three tensors are never written, and half
precision rounds once instead of three times.

The weights of an adapter are trained in float32. PEFT converts the input of each layer to their
number format, and autocast converts it back to half precision for the product: two copies of every
activation, one of which is kept for the backward pass. Under autocast, the input stays as it is;
the product gets the same numbers.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn

__all__ = ["use_fast_lora"]


def use_fast_lora(model: nn.Module) -> None:
    """Let the LoRA layers of a PEFT model compute as described above.

    DoRA, adapters of layers other than linear ones and those on quantized weights stay as they are.
    """
    for module in model.modules():
        if type(module) is Linear and not module.lora_variant:  # DoRA uses the input itself
            module.__class__ = FastLoraLinear
            for up in module.lora_B.values():
                if type(up) is nn.Linear:
                    up.__class__ = AddedLinear


class AddedLinear(nn.Linear):
    """The second matrix of an adapter, B.

    Its product is added here and not in the layer around it, because libraries that divide weights
    collect those of a module when it is called.
    """

    def forward(self, x: Tensor, added: Tensor | None = None, scaling: float = 1.0) -> Tensor:
        """Return ``added + scaling * B x``, or the product alone.

        Args:
            x: [..., r], the input.
            added: [..., out], what the product is added to; its number format is the result's.
            scaling: The factor of the product.
        """
        if added is None:
            return super().forward(x)
        if self.bias is not None or x.dim() < 2 or not self._in_one_format(x, added):
            return (added + super().forward(x) * scaling).to(added.dtype)
        rows, weight = x.flatten(0, -2), self.weight.t()
        return torch.addmm(added.reshape(len(rows), -1), rows, weight, alpha=scaling).view_as(added)

    def _in_one_format(self, x: Tensor, added: Tensor) -> bool:
        """Return whether the product would be computed in the number format of `added`."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            return added.dtype == torch.get_autocast_dtype(kind)
        return x.dtype == self.weight.dtype == added.dtype


class FastLoraLinear(Linear):
    """A LoRA layer on a linear one that adds the product of its adapter in one call."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the output; PEFT computes all but the case of a single active adapter."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = not (args or kwargs or self.disable_adapters or self.merged or self.lora_variant)
        up = self.lora_B[names[0]] if plain and len(names) == 1 else None
        if not isinstance(up, AddedLinear):
            output: Tensor = super().forward(x, *args, **kwargs)
            return output
        (name,) = names
        down: Any = self.lora_A[name]
        low = down(self.lora_dropout[name](self._cast_input_dtype(x, down.weight.dtype)))
        result: Tensor = up(low, self.base_layer(x), self.scaling[name])
        return result

    def _cast_input_dtype(self, x: Any, dtype: torch.dtype) -> Any:
        """Return the input, converted unless autocast does it."""
        if x is None or torch.is_autocast_enabled(x.device.type):
            return x
        return super()._cast_input_dtype(x, dtype)

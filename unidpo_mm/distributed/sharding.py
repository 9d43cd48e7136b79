"""How the weights of a run are divided among its processes, known before the model is loaded."""

import os
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

__all__ = ["Sharding", "held_count", "is_divided", "sharding_of", "weight_count"]


@dataclass(frozen=True)
class Sharding:
    """The library that divides the state of a run among its processes, and how much of it.

    Attributes:
        kind: `none` for one process or DDP.
        stage: The stage of ZeRO, 0 to 3, for DeepSpeed.
    """

    kind: Literal["none", "fsdp", "deepspeed"] = "none"
    stage: int = 0

    @property
    def weights(self) -> bool:
        """Whether a process holds only a part of the weights during training."""
        return self.kind == "fsdp" or self.stage == 3

    @property
    def name(self) -> str:
        """The name for messages."""
        if self.kind == "deepspeed":
            return f"DeepSpeed ZeRO-{self.stage}"
        return {"none": "DDP", "fsdp": "FSDP"}[self.kind]


def sharding_of(args: Any) -> Sharding:
    """Return the sharding that arguments, or the environment of accelerate, request.

    Args:
        args: transformers' `TrainingArguments`.
    """
    plugin = getattr(args, "deepspeed_plugin", None)
    if plugin is not None:
        return Sharding("deepspeed", int(plugin.zero_stage))
    by_launcher = os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true", "yes")
    return Sharding("fsdp") if args.fsdp or by_launcher else Sharding()


def is_divided(tensor: Tensor) -> bool:
    """Return whether DeepSpeed holds the numbers of a weight, divided among processes."""
    return hasattr(tensor, "ds_id")


def weight_count(tensor: Tensor) -> int:
    """Return the number of elements of a weight, also while it is divided among processes."""
    return int(getattr(tensor, "ds_numel", None) or tensor.numel())


def held_count(tensor: Tensor) -> int:
    """Return the number of elements of a weight that this process holds."""
    if is_divided(tensor):
        part: Tensor = tensor.ds_tensor  # type: ignore[attr-defined]
        return part.numel()
    return int(getattr(tensor, "to_local", lambda: tensor)().numel())

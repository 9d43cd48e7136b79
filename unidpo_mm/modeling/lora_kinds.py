"""Kinds of LoRA: DoRA, rank-stabilized scaling, and initialization from the weights of the model.

PiSSA and OLoRA start with a part of each weight: ``W = W_rest + s B0 A0``, and from then on train A
and B, starting from A0 and B0, on ``W_rest``. So the model without its LoRA adapter is not the base
model, and an adapter that contains only A and B is wrong on the base model. Therefore

- the reference is a frozen copy of the initial LoRA adapter (`references/kinds.py`);
- saved LoRA adapters contain the *difference* ``s (B A - B0 A0)``, a plain LoRA adapter of twice
  the rank for the unchanged base model, which every program can apply;
- A and B themselves are saved next to it, so that a run resumes exactly.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError, Problem
from ..lora_directory import ADAPTER_CONFIG
from .peft_models import (
    active_adapter,
    adapter_tensors,
    changes_base_weights,
)

__all__ = [
    "TRAINED_FILE",
    "load_trained",
    "record_start",
    "save_difference",
    "starts_from_weights",
]

TRAINED_FILE = "lora_in_training.safetensors"
"""The trained matrices themselves, next to the adapter with the difference."""

START = "_unidpo_lora_start"
"""Attribute of a PEFT model: key of each matrix -> its initial value."""

SUBTRACTING = ("pissa", "olora", "corda", "lora_ga")
"""Values of `init_lora_weights` that subtract the initial update from the base model's weights."""


def record_start(policy: Any) -> None:
    """Record the initial matrices of a new LoRA adapter that took them from the base's weights.

    Raises:
        ModelError: If the difference from them could not be saved.
    """
    kind = changes_base_weights(policy)
    if kind is None or not kind.startswith(SUBTRACTING):
        return
    if policy.peft_config[active_adapter(policy)].use_dora:
        problem = f"'{kind}' cannot be combined with DoRA, whose update is not a difference"
        raise ModelError(Problem("model.lora.init", problem, "Use one of the two"))
    setattr(policy, START, {key: t.detach().clone().cpu() for key, t in _matrices(policy).items()})


def starts_from_weights(policy: Any) -> bool:
    """Return whether a LoRA adapter of this run took its initial update from the base model."""
    return getattr(policy, START, None) is not None


def save_difference(policy: Any, directory: Path) -> None:
    """Replace a saved LoRA adapter by its difference from the initial one, if that is needed.

    Args:
        policy: The PEFT model.
        directory: The directory in which PEFT saved its active adapter.
    """
    from safetensors.torch import load_file, save_file

    start: Mapping[str, Tensor] | None = getattr(policy, START, None)
    if start is None:
        return
    path = directory / "adapter_model.safetensors"
    trained = load_file(path)
    save_file(trained, directory / TRAINED_FILE, {"format": "pt"})
    config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    # PEFT scales the update by alpha / r, or alpha / sqrt(r), with the new rank
    scale = math.sqrt(2) if config.get("use_rslora") else 2.0
    difference = dict(trained)
    for key, tensor in trained.items():
        initial = start.get(key)
        if initial is None:
            continue
        initial = initial.to(tensor)
        if ".lora_A" in key:
            difference[key] = torch.cat([tensor, initial], dim=0)
        else:
            difference[key] = torch.cat([tensor * scale, initial * -scale], dim=1)
    save_file(difference, path, {"format": "pt"})
    config["r"] *= 2
    config["rank_pattern"] = {name: 2 * r for name, r in (config["rank_pattern"] or {}).items()}
    config["init_lora_weights"] = True
    (directory / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), encoding="utf-8")


@torch.no_grad()
def load_trained(policy: Any, directory: Path) -> bool:
    """Load the trained matrices of a checkpoint into a LoRA adapter that changed its base.

    Returns:
        Whether the adapter is of that kind; others are loaded by PEFT.

    Raises:
        ModelError: If the checkpoint has no such matrices.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    if not starts_from_weights(policy):
        return False
    path = directory / TRAINED_FILE
    if not path.is_file():
        problem = f"'{directory}' has no {TRAINED_FILE}, which model.lora.init needs"
        raise ModelError(Problem("run.resume", problem, "Choose a checkpoint of this run"))
    set_peft_model_state_dict(policy, load_file(path), adapter_name=active_adapter(policy))
    return True


def _matrices(policy: Any) -> dict[str, Tensor]:
    """Return the matrices A and B of the active adapter by their keys in a file."""
    name = active_adapter(policy)
    return {
        key: tensor
        for adapter, key, tensor in adapter_tensors(policy)
        if adapter == name and (".lora_A." in key or ".lora_B." in key)
    }

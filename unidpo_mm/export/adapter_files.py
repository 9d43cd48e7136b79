"""Write a LoRA adapter whose keys have the names in the files of its base model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError, Problem
from ..modeling.checkpoint_names import PREFIX, file_modules, module_of, renamed
from ..modeling.peft_models import active_adapter, is_peft_model
from ..modeling.tensor_files import TensorFiles
from .tensors import PYTORCH

__all__ = ["ADAPTER_FILE", "serving_limits", "write_adapter"]

ADAPTER_FILE = "adapter_model.safetensors"


def write_adapter(
    policy: Any, directory: Path, base: TensorFiles, *, base_name: str, dtype: str, where: str
) -> int:
    """Write the active adapter of a PEFT model; return the number of changed keys.

    Args:
        policy: The PEFT model.
        directory: The directory to write to.
        base: The tensors of the base model.
        base_name: Path or hub name of the base model, for the configuration of the adapter.
        dtype: Number format of the weights; ``auto`` for that of the trained weights.
        where: The adapter, for messages.

    Raises:
        ModelError: If the adapter changes weights that the base model does not have.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    name = active_adapter(policy)
    config = policy.peft_config[name]
    if getattr(config, "target_parameters", None):
        problem = "it adapts parameters of experts, whose names other programs do not share"
        raise ModelError(Problem(where, problem, "Export it with --merge"))
    modules = file_modules(policy.get_base_model())
    state = get_peft_model_state_dict(policy, adapter_name=name)
    names = {key: renamed(key, modules) for key in state}
    tensors = {names[key]: tensor.detach().contiguous() for key, tensor in state.items()}
    _check_modules(tensors, base, where)
    if dtype != "auto":
        number_format = getattr(torch, dtype)
        tensors = {key: tensor.to(number_format) for key, tensor in tensors.items()}
    save_file(tensors, directory / ADAPTER_FILE, PYTORCH)
    before = config.base_model_name_or_path, config.inference_mode
    config.base_model_name_or_path, config.inference_mode = base_name, True
    config.save_pretrained(str(directory))
    config.base_model_name_or_path, config.inference_mode = before
    return sum(key != new_key for key, new_key in names.items())


def serving_limits(policy: Any) -> list[str]:
    """Return what programs that only serve plain LoRA adapters do not apply; none for a model."""
    if not is_peft_model(policy):
        return []
    config = policy.peft_config[active_adapter(policy)]
    limits = []
    if getattr(config, "modules_to_save", None):
        limits.append("modules that are trained in full (modules_to_save)")
    if getattr(config, "use_dora", False):
        limits.append("DoRA")
    if getattr(config, "trainable_token_indices", None):
        limits.append("trained token embeddings")
    return limits


def _check_modules(keys: Iterable[str], base: TensorFiles, where: str) -> None:
    """Check that the base model has the weights that each key changes."""
    modules = {name.rpartition(".")[0] for name in base.shapes}
    absent = sorted({module_of(key) for key in keys} - modules)
    heads = [name for name in absent if name.rpartition(".")[2] == "lm_head"]  # may be tied
    if absent := [name for name in absent if name not in heads]:
        name = absent[0].removeprefix(PREFIX)
        problem = f"the base model '{base.name_or_path}' has no weights for the module {name}"
        raise ModelError(Problem(where, problem, "Set --base to the model that was trained"))

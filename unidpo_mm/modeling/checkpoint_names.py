"""Names of weights in the files of a checkpoint, which may differ from those in the model.

transformers renames weights while it loads some vision-language models, and back when it saves
them. The files of a LoRA adapter are not renamed by PEFT: they have the names of the modules in
memory. Other programs, which know only the files of the base model, then apply no weight of the
adapter. Here the keys of an adapter are renamed in both directions.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "adapter_with_model_names",
    "file_modules",
    "file_names",
    "head_names",
    "module_of",
    "renamed",
]

PREFIX = "base_model.model."
"""The text that PEFT puts before the name of a module."""

WRAPPERS = (".base_layer", ".original_module")
"""Parts that PEFT adds to the names of weights that it wraps."""


def file_names(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name in the files that the model is saved in.

    The names are those of the checkpoint that the model was loaded from, tied weights included. The
    model may contain a LoRA adapter.
    """
    from transformers.core_model_loading import revert_weight_conversion

    # tensors without content, since converters split and join them
    state = {name: tensor.to("meta") for name, tensor in _plain_state(model).items()}
    return {
        name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()
    }


def file_modules(model: Any) -> dict[str, str]:
    """Return, for each module with weights, its name in the files of the checkpoint.

    Modules whose weights are split or joined when they are saved have no such name.
    """
    from transformers.core_model_loading import revert_weight_conversion

    names: dict[str, str] = {}
    for name, tensor in _plain_state(model).items():
        module = name.rpartition(".")[0]
        if not module or module in names:
            continue
        with contextlib.suppress(Exception):  # a converter that needs the other tensors as well
            reverted = list(revert_weight_conversion(model, {name: tensor.to("meta")}))
            if len(reverted) == 1:
                names[module] = reverted[0].rpartition(".")[0]
    return names


def head_names(model: Any) -> set[str]:
    """Return the name of the weight of the output head in the files of the model."""
    head = model.get_output_embeddings()
    modules = file_modules(model)
    names = [name for name, module in model.named_modules() if module is head]
    return {f"{modules[name]}.weight" for name in names if name in modules}


def renamed(key: str, modules: Mapping[str, str]) -> str:
    """Return a key of an adapter in which the longest name of a module is replaced."""
    parts = key.removeprefix(PREFIX).split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        if module in modules:
            return PREFIX + ".".join([modules[module], *parts[count:]])
    return key


@contextlib.contextmanager
def adapter_with_model_names(model: nn.Module, directory: str) -> Iterator[str]:
    """Yield an adapter directory whose keys have the names of the modules of a model.

    Args:
        model: The base model.
        directory: An adapter directory with these names, which is yielded itself, or with the names
            in the files of the base model, which gets a temporary copy.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights
    from safetensors.torch import save_file

    weights: Mapping[str, Tensor] = load_peft_weights(directory, device="cpu")
    in_memory = {name for name, _ in model.named_modules()}
    if all(module_of(key) in in_memory for key in weights):
        yield directory
        return
    model_names = {name: module for module, name in file_modules(model).items()}
    copied = {renamed(key, model_names): tensor for key, tensor in weights.items()}
    with tempfile.TemporaryDirectory() as temporary:
        PeftConfig.from_pretrained(directory).save_pretrained(temporary)
        save_file(copied, Path(temporary) / "adapter_model.safetensors", {"format": "pt"})
        yield temporary


def module_of(key: str) -> str:
    """Return the module of the base model that a key of an adapter belongs to."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    name = key.removeprefix(PREFIX)
    for part in {*PEFT_TYPE_TO_PREFIX_MAPPING.values(), "token_adapter."}:
        before, separator, _ = name.partition(f".{part}")
        if separator:
            return before
    return name.rpartition(".")[0]  # a module that is trained in full


def _plain_state(model: Any) -> dict[str, Tensor]:
    """Return the weights of a model without an adapter, by their names without PEFT."""
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if any(f".{part}" in name for part in ("lora_", "modules_to_save.", "token_adapter.")):
            continue
        plain = name
        for wrapper in WRAPPERS:
            plain = plain.replace(f"{wrapper}.", ".")
        state[plain] = tensor.detach() if isinstance(tensor, torch.Tensor) else tensor
    return state

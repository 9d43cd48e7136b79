"""PEFT models: their active adapter, whether it changes the model, and frozen copies of it.

A LoRA adapter may already be trained when a run starts. Then the model without its adapter is not
the model before the run, which is what the reference must be.
"""

import contextlib
import copy
import json
import warnings
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError, Problem

__all__ = [
    "REFERENCE_ADAPTER",
    "active_adapter",
    "adapter_tensors",
    "can_copy_adapter",
    "changes_base_weights",
    "check_adapter_trains",
    "check_supported",
    "copy_adapter",
    "describe_adapter",
    "freeze_inactive_adapters",
    "is_peft_model",
    "is_zero",
    "using_adapter",
]

REFERENCE_ADAPTER = "unidpo_reference"
"""Name of the frozen copy of a LoRA adapter; never saved."""

CHANGING_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga", "mica")
"""Values of `init_lora_weights` that also change the weights of the base model."""

UNSUPPORTED = {
    "XLORA": "X-LoRA computes its scalings outside the base model",
    "POLY": "Poly needs task ids with every batch",
    "CPT": "CPT puts virtual tokens before the prompt",
}
"""PEFT methods that only work through `PeftModel.forward`, which computing log-probs bypasses."""

NOT_A_SETTING = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "init_lora_weights",
    "lora_dropout",
    "peft_version",
    "revision",
    "task_type",
)
"""Fields of a PEFT configuration that do not change what the model computes, given its weights."""


@contextlib.contextmanager
def deprecated_name_ignored() -> Iterator[None]:
    """Ignore one warning while PEFT creates a `PeftModel`.

    Its constructor reads `is_gradient_checkpointing`, which transformers has renamed; a user can
    do nothing about it.
    """
    with warnings.catch_warnings():
        message = "`is_gradient_checkpointing` is deprecated"
        warnings.filterwarnings("ignore", message, FutureWarning)
        yield


def is_peft_model(model: Any) -> bool:
    """Return whether a model is a `peft.PeftModel`."""
    from peft import PeftModel

    return isinstance(model, PeftModel)


def active_adapter(model: Any) -> str:
    """Return the name of the active adapter of a PEFT model, the first of several."""
    return str(model.active_adapters[0])


def adapter_tensors(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (adapter name, key, tensor) for every weight and buffer that belongs to an adapter.

    The key does not contain the adapter name, so the keys of two adapters can be compared.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for path, module in model.named_modules():
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper):
            names = (*module.adapter_layer_names, *module.other_param_names)
            for name in dict.fromkeys(names):  # DoRA lists its names once per adapter
                yield from _tensors_of(_container(module, name), f"{path}.{name}")


def _container(module: Any, name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError:
        return None


def _tensors_of(container: Any, path: str) -> Iterator[tuple[str, str, Tensor]]:
    if not hasattr(container, "items"):
        return
    for adapter, item in container.items():
        if isinstance(item, Tensor):
            yield adapter, path, item
        elif isinstance(item, nn.Module):
            for key, tensor in item.state_dict(keep_vars=True).items():
                yield adapter, f"{path}.{key}", tensor


# ---- checks ----


def check_supported(model: Any, where: str) -> None:
    """Raise ModelError if log-probs computed without `PeftModel.forward` would be wrong."""
    if not hasattr(model, "peft_config"):
        return
    if not is_peft_model(model):
        raise ModelError(_not_a_peft_model(model, where))
    config = model.peft_config[active_adapter(model)] if model.active_adapters else None
    if config is None:
        return
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    reason = UNSUPPORTED.get(kind)
    if config.is_prompt_learning:
        reason = f"{kind} puts virtual tokens before the prompt"
    elif getattr(config, "alora_invocation_tokens", None):
        reason = "an activated LoRA adapter (alora_invocation_tokens) depends on the whole prompt"
    if reason is not None:
        raise ModelError(Problem(where, f"{reason}, which is not supported", "Use a LoRA adapter"))


def _not_a_peft_model(model: Any, where: str) -> Problem:
    """Return the problem of a model that contains adapters and is not a `PeftModel`."""
    from peft import PeftMixedModel

    remedy = (
        "Load the base model and pass PeftModel.from_pretrained(base, directory, "
        "is_trainable=True), or pass the adapter directory itself"
    )
    if isinstance(model, PeftMixedModel):
        return Problem(where, "a PeftMixedModel cannot be saved", remedy)
    if getattr(model, "_hf_peft_config_loaded", False):
        problem = (
            "the adapter was loaded into the transformers model itself (`load_adapter`, "
            "`add_adapter`, or `from_pretrained` on an adapter directory)"
        )
        return Problem(where, problem, remedy)
    problem = "it is the base model of a PEFT model, so it contains the adapter as well"
    return Problem(where, problem, "Pass the PeftModel that get_peft_model returned")


def check_adapter_trains(model: Any) -> None:
    """Raise ModelError if the adapter of a PEFT model would get no gradients.

    Called before training, for a PEFT model that the user passed.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    active = list(model.active_adapters)
    names = ", ".join(f"'{name}'" for name in active)
    if len(active) > 1:
        problem = f"several adapters are active ({names}), and one can be trained at a time"
        remedy = "Activate one with model.set_adapter(name), or merge the others into the base"
        raise ModelError(Problem("model", problem, remedy))
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.merged for layer in layers):
        problem = f"the adapter {names} is merged into the base model, so it gets no gradients"
        remedy = "Call model.unmerge_adapter() first, or pass model.merge_and_unload()"
        raise ModelError(Problem("model", problem, remedy))
    if layers and all(layer.disable_adapters for layer in layers):
        problem = f"the adapter {names} is disabled, so it gets no gradients"
        raise ModelError(Problem("model", problem, "Call model.enable_adapter_layers() first"))
    here = {id(tensor) for name, _, tensor in adapter_tensors(model) if name in active}
    elsewhere = {
        id(tensor): name for name, _, tensor in adapter_tensors(model) if name not in active
    }
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    if any(p in here or p not in elsewhere for p in trainable):
        return
    if trainable:
        other = elsewhere[trainable[0]]
        problem = f"only the adapter '{other}' is trainable, and it is not active ({names} is)"
        remedy = f"Call model.set_adapter('{other}')"
    else:
        problem = f"no weight of the PEFT model is trainable (active adapter: {names})"
        remedy = (
            "Load it with PeftModel.from_pretrained(..., is_trainable=True), and call "
            "model.set_adapter after loading another adapter"
        )
    raise ModelError(Problem("model", problem, remedy))


def freeze_inactive_adapters(model: Any) -> None:
    """Freeze adapters that are loaded and not active, which get no gradients."""
    active = model.active_adapters
    for name, _, tensor in adapter_tensors(model):
        if name not in active and isinstance(tensor, nn.Parameter):
            tensor.requires_grad_(False)


# ---- the effect of an adapter ----


@torch.no_grad()
def is_zero(model: Any) -> bool:
    """Return whether the model is exactly the same with the active LoRA adapter switched off.

    True for a fresh LoRA adapter. Methods other than LoRA, and LoRA variants such as DoRA, count
    as not zero.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    if not _is_lora(model):
        return False
    name = active_adapter(model)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer) and not _layer_is_zero(module, name):
            return False
        if isinstance(module, AuxiliaryTrainingWrapper) and not _is_original(module, name):
            return False
    return True


def _layer_is_zero(layer: Any, name: str) -> bool:
    if getattr(layer, "lora_variant", {}).get(name) is not None:
        return False
    for down, up in (("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B")):
        pair = [getattr(layer, key, {}) for key in (down, up)]
        if name not in pair[0]:
            continue
        weights = [getattr(part[name], "weight", part[name]) for part in pair]
        if all(bool(weight.any()) for weight in weights):
            return False
        bias = getattr(pair[1][name], "bias", None)
        if bias is not None and bool(bias.any()):
            return False
    return True


def _is_original(wrapper: Any, name: str) -> bool:
    """Return whether a module that trains in full still has the weights of the base model."""
    if not hasattr(wrapper, "modules_to_save"):
        return name not in wrapper._get_available_adapters()
    if name not in wrapper.modules_to_save:
        return True
    saved = wrapper.modules_to_save[name].state_dict()
    original = wrapper.original_module.state_dict()
    return all(torch.equal(tensor, original[key]) for key, tensor in saved.items())


def changes_base_weights(model: Any) -> str | None:
    """Return the `init_lora_weights` that changed the base model; `None` if it did not."""
    config = model.peft_config[active_adapter(model)]
    value = str(getattr(config, "init_lora_weights", "")).lower()
    return value if value.startswith(CHANGING_BASE) else None


def describe_adapter(model: Any, name: str) -> dict[str, str]:
    """Return the settings of an adapter that affect the results of the model, as text."""
    settings = model.peft_config[name].to_dict()
    kept = {key: value for key, value in settings.items() if key not in NOT_A_SETTING}
    return {key: json.dumps(_plain(value), sort_keys=True) for key, value in kept.items()}


def _plain(value: Any) -> Any:
    """Return a value that JSON can represent, with sets in a fixed order."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value if isinstance(value, str | int | float | bool | None | list) else str(value)


def _is_lora(model: Any) -> bool:
    config = model.peft_config[active_adapter(model)]
    return str(getattr(config.peft_type, "value", config.peft_type)) == "LORA"


# ---- switching and copying ----


@contextlib.contextmanager
def using_adapter(model: Any, name: str | None) -> Iterator[None]:
    """Run the body with another adapter of a PEFT model, or with none if the name is `None`.

    PEFT changes `requires_grad` whenever it switches adapters. Here all flags stay the same, even
    in the body: FSDP and the sharing of image features read them in a forward pass.
    """
    flags = _flags(model)
    if name is None:
        try:
            with model.disable_adapter():
                _restore(flags)
                yield
        finally:
            _restore(flags)
        return
    tuner = model.base_model
    before = tuner.active_adapter
    tuner.set_adapter(name, inference_mode=True)
    _restore(flags)
    try:
        yield
    finally:
        tuner.set_adapter(before)
        _restore(flags)


def can_copy_adapter(model: Any) -> bool:
    """Return whether the active adapter can be copied by `copy_adapter`."""
    if not _is_lora(model):
        return False
    config = model.peft_config[active_adapter(model)]
    special = ("target_parameters", "trainable_token_indices", "layer_replication", "arrow_config")
    if any(getattr(config, name, None) for name in special) or config.bias != "none":
        return False
    variants = any(
        getattr(module, "lora_variant", {}).get(active_adapter(model)) is not None
        for module in model.modules()
    )
    return config.use_dora or not variants


@torch.no_grad()
def copy_adapter(model: Any) -> str:
    """Add a frozen copy of the active LoRA adapter to a PEFT model; return the copy's name.

    The copy shares the base model, so it only takes the memory of the LoRA adapter. The active
    adapter and the trainable weights stay the same.
    """
    source = active_adapter(model)
    name = _unused_name(model)
    config = copy.deepcopy(model.peft_config[source])
    config.init_lora_weights = True  # PiSSA and others would change the base model again
    config.inference_mode = True
    flags = _flags(model)
    with torch.random.fork_rng(devices=[]):  # the copy must not use random numbers of the run
        model.add_adapter(name, config)
    _restore(flags)
    tensors = list(adapter_tensors(model))
    originals = {key: tensor for adapter, key, tensor in tensors if adapter == source}
    for adapter, key, tensor in tensors:
        if adapter == name:
            tensor.data = originals.pop(key).detach().clone()
            tensor.requires_grad_(False)
    if originals:
        raise RuntimeError(f"weights of the adapter '{source}' were not copied: {list(originals)}")
    return name


def _unused_name(model: Any) -> str:
    """Return an unused name for the copy; a model that was trained before has a copy already."""
    names = [REFERENCE_ADAPTER, *(f"{REFERENCE_ADAPTER}_{n}" for n in range(2, 1000))]
    return next(name for name in names if name not in model.peft_config)


def _flags(model: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    return [(parameter, parameter.requires_grad) for parameter in model.parameters()]


def _restore(flags: list[tuple[nn.Parameter, bool]]) -> None:
    for parameter, flag in flags:
        if parameter.requires_grad != flag:
            parameter.requires_grad_(flag)

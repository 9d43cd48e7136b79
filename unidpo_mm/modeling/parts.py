"""The parts of a model: frozen ones, LoRA adapters, learning rates and counts of parameters."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn, optim

from ..adapter import AdapterFamily, Part
from ..config import LoraOptions
from ..config.python import UniDPOConfig
from ..distributed.sharding import weight_count
from ..errors import ModelError, Problem
from ..plugins import suggestion
from .logp_model import base_and_head
from .lora_targets import PYTHON_KEYS, RECIPE_KEYS, Keys, LoraTargets, check_rank, part_of
from .peft_models import adapter_tensors, deprecated_name_ignored, is_peft_model

__all__ = [
    "PartCount",
    "add_lora",
    "add_peft",
    "check_parts",
    "compute_dtype",
    "count_parameters",
    "disable_dropout",
    "freeze_parts",
    "freeze_trained_parts",
    "keep_in_float32",
    "lora_part_problems",
    "part_of",
    "part_problems",
    "set_learning_rates",
]


SEED = 0
"""Seed of the decomposition of weights from which a LoRA adapter starts."""


@dataclass(frozen=True)
class PartCount:
    """The number of parameters of a part."""

    part: Part
    trainable: int
    total: int


def freeze_parts(
    model: nn.Module, family: AdapterFamily, freeze: Iterable[Part] | None
) -> tuple[Part, ...]:
    """Freeze parts of a model, by default those of its family; make the others trainable.

    Returns:
        The frozen parts.

    Raises:
        ModelError: If the model has no such part, or no part remains to train.
    """
    frozen = tuple(family.default_freeze if freeze is None else freeze)
    check_parts(frozen, family, RECIPE_KEYS.freeze)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(part_of(name, family.parts) not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        problem = f"every part of the model is frozen ({', '.join(frozen)})"
        raise ModelError(Problem(RECIPE_KEYS.freeze, problem, "Remove a part from the list"))
    return frozen


def freeze_trained_parts(model: nn.Module, family: AdapterFamily, freeze: Iterable[Part]) -> None:
    """Freeze parts of a PEFT model that was loaded with its adapter.

    Raises:
        ModelError: If the model has no such part, or no part remains to train.
    """
    frozen = tuple(freeze)
    check_parts(frozen, family, RECIPE_KEYS.freeze)
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    for name, parameter in trainable:
        if part_of(name, family.parts) in frozen:
            parameter.requires_grad_(False)
    if trainable and not any(parameter.requires_grad for _, parameter in trainable):
        problem = f"every trainable weight is in a frozen part ({', '.join(frozen)})"
        remedy = "Remove the parts that have the adapter from the list"
        raise ModelError(Problem(RECIPE_KEYS.freeze, problem, remedy))


def lora_part_problems(
    settings: LoraOptions, family: AdapterFamily, freeze: Iterable[Part] | None
) -> list[Problem]:
    """Return a problem for each part that does not exist, or is both frozen and adapted."""
    frozen = set(freeze or ())
    return part_problems(sorted(frozen), family, RECIPE_KEYS.freeze) or [
        Problem(
            where,
            f"'{name}' is adapted here and frozen by {RECIPE_KEYS.freeze}",
            "Remove it from one of the two",
        )
        for where, names in (
            (RECIPE_KEYS.targets, _names(settings.targets)),
            (RECIPE_KEYS.modules_to_save, settings.modules_to_save),
        )
        for name in names
        if name in frozen
    ]


def add_lora(
    model: nn.Module,
    family: AdapterFamily,
    settings: LoraOptions,
    freeze: Iterable[Part] | None = None,
) -> Any:
    """Return the model with a LoRA adapter; only the adapter and `modules_to_save` train.

    Frozen parts, by default those of the family, are not adapted, except where the settings name
    them.

    Raises:
        ModelError: If a target does not exist, or a part is both frozen and adapted.
    """
    from peft import LoraConfig

    if problems := lora_part_problems(settings, family, freeze):
        raise ModelError(problems)
    init: Any = True if settings.init == "default" else settings.init
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=_targets(model, family, settings.targets),
        modules_to_save=_modules_to_save(model, family, settings.modules_to_save),
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        init_lora_weights=init,
        task_type="CAUSAL_LM",
    )
    named = {*_names(settings.targets), *settings.modules_to_save}
    return _adapted(model, family, config, freeze, keys=RECIPE_KEYS, named=named)


def add_peft(
    model: nn.Module,
    family: AdapterFamily,
    config: Any,
    freeze: Iterable[Part] | None = None,
) -> Any:
    """Return the model with the adapter of a PEFT configuration, which is not changed.

    Frozen parts, by default those of the family, are not adapted.

    Raises:
        ModelError: If a target does not exist or PEFT refuses the configuration.
    """
    return _adapted(model, family, config, freeze, keys=PYTHON_KEYS, named=())


def _adapted(
    model: nn.Module,
    family: AdapterFamily,
    config: Any,
    freeze: Iterable[Part] | None,
    *,
    keys: Keys,
    named: Iterable[str],
) -> Any:
    from peft import get_peft_model

    frozen = tuple(family.default_freeze if freeze is None else freeze)
    check_parts(frozen, family, keys.freeze)
    frozen = tuple(part for part in frozen if part not in set(named))
    if hasattr(config, "target_modules"):
        targets = LoraTargets(
            model=model, family=family, frozen=frozen, keys=keys, by_default=freeze is None
        )
        config = targets.restrict(config)
    try:
        with deprecated_name_ignored(), _equal_decompositions(config):
            policy = get_peft_model(model, config)
    # torch raises a RuntimeError for a failed decomposition of a weight
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError) as error:
        problem = f"PEFT refuses it ({' '.join(str(error).split()).rstrip('.')})"
        raise ModelError(Problem(keys.targets, problem, "Change it as PEFT says")) from error
    check_rank(policy, keys)
    saved = {id(tensor) for _, key, tensor in adapter_tensors(policy) if ".modules_to_save" in key}
    for name, parameter in policy.named_parameters():  # such as the biases of bias="all"
        if part_of(name, family.parts) in frozen and id(parameter) not in saved:
            parameter.requires_grad_(False)
    return policy


@contextlib.contextmanager
def _equal_decompositions(config: Any) -> Iterator[None]:
    """Start from the same random numbers if a LoRA adapter starts from the weights of the model.

    Approximate singular vectors follow from random ones, and must be equal when a run resumes.
    """
    if not isinstance(getattr(config, "init_lora_weights", True), str):
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def set_learning_rates(
    optimizer: optim.Optimizer,
    model: nn.Module,
    rates: Mapping[Part, float],
    family: AdapterFamily,
) -> None:
    """Split the parameter groups of a new optimizer by part and set their rates, in place.

    Parts without a rate keep that of the optimizer, which has no scheduler yet.
    """
    part_by_parameter = {
        id(parameter): part_of(name.removeprefix("model."), family.parts)
        for name, parameter in model.named_parameters()
    }
    common = optimizer.param_groups[0]["lr"]
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        by_part: dict[Part, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            by_part.setdefault(part_by_parameter[id(parameter)], []).append(parameter)
        groups += [
            {**group, "params": parameters, "lr": rates.get(part, group["lr"])}
            for part, parameters in by_part.items()
        ]
    # transformers logs the rate of the first group, which should be the common one
    optimizer.param_groups[:] = sorted(groups, key=lambda group: group["lr"] != common)


def linear_layers(model: nn.Module, family: AdapterFamily, part: Part) -> list[str]:
    """Return the names of the linear layers of a part, except the output head."""
    _, head = base_and_head(model)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and part_of(name, family.parts) == part
    ]
    if not names:
        problem = f"the part '{part}' has no linear layer"
        raise ModelError(Problem("model.lora.targets", problem, "Choose another part or modules"))
    return names


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of a model to 0, so that policy and reference see the same network.

    Attention layers and stochastic depth keep their probability in a number of their own, such as
    `attention_dropout` or `drop_prob`.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def keep_in_float32(model: nn.Module) -> None:
    """Convert trainable weights to float32, for mixed precision.

    Autocast still computes in bfloat16 or float16. But a small update of a weight that is stored in
    bfloat16 would be rounded to zero.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def compute_dtype(args: UniDPOConfig, model: nn.Module) -> torch.dtype:
    """Return the number format of matrix products."""
    if args.bf16 or args.fp16:
        return torch.bfloat16 if args.bf16 else torch.float16
    return next(model.parameters()).dtype


def count_parameters(model: nn.Module, family: AdapterFamily) -> list[PartCount]:
    """Return the number of trainable and of all parameters per part, in the family's order.

    For a PEFT model they are those of the base model with its active adapter. Other adapters, such
    as the frozen copy for the reference, and the originals of `modules_to_save` are not counted.
    """
    counts = {part: [0, 0] for part in (*family.parts, "other")}
    inactive: set[int] = set()
    if is_peft_model(model):
        peft_model: Any = model
        active = peft_model.active_adapters
        inactive = {id(t) for adapter, _, t in adapter_tensors(model) if adapter not in active}
    for name, parameter in model.named_parameters():
        if id(parameter) in inactive or ".original_module." in name:
            continue
        count = counts[part_of(name, family.parts)]
        elements = weight_count(parameter)
        count[0] += elements if parameter.requires_grad else 0
        count[1] += elements
    return [PartCount(part, *count) for part, count in counts.items() if count[1]]


def _names(targets: str | Sequence[str]) -> Sequence[str]:
    return (targets,) if isinstance(targets, str) else targets


def _targets(
    model: nn.Module, family: AdapterFamily, targets: str | Sequence[str]
) -> str | list[str]:
    """Return targets as PEFT takes them, with parts replaced by their linear layers.

    A string that is not a part is the name of a module or, as in PEFT, a regular expression.
    """
    if isinstance(targets, str) and targets not in family.parts:
        return [targets] if targets.isidentifier() else targets
    return [
        name
        for target in _names(targets)
        for name in (linear_layers(model, family, target) if target in family.parts else (target,))
    ]


def _modules_to_save(
    model: nn.Module, family: AdapterFamily, names: Sequence[str]
) -> list[str] | None:
    """Return names of modules as PEFT takes them, with parts replaced by their modules."""
    present = {name for name, _ in model.named_modules()}
    modules = [
        prefix.rpartition(".")[2]
        for name in names
        for prefix in family.parts.get(name, (name,))
        if name not in family.parts or prefix in present
    ]
    return modules or None


def part_problems(names: Iterable[Part], family: AdapterFamily, where: str) -> list[Problem]:
    """Return a problem for each name that is not a part of a family's models."""
    return [
        Problem(
            where,
            f"a model of the family '{family.name}' has no part '{name}'"
            f"{suggestion(name, family.parts)}",
            f"Choose from {', '.join(family.parts)}",
        )
        for name in names
        if name not in family.parts
    ]


def check_parts(names: Iterable[Part], family: AdapterFamily, where: str) -> None:
    """Raise ModelError if a name is not a part of a family's models."""
    if problems := part_problems(names, family, where):
        raise ModelError(problems)

"""The parts of a model by name: freezing, LoRA, learning rates, and the table of what trains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..adapter import AdapterFamily, Part
from ..errors import ModelError, Problem
from ..plugins import suggestion
from .scoring import base_and_head

__all__ = [
    "LoraSettings",
    "PartCount",
    "add_lora",
    "count_parameters",
    "disable_dropout",
    "freeze_parts",
    "keep_in_float32",
    "part_of",
]

PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """How LoRA matrices are added.

    Attributes:
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout on the LoRA branch; 0 keeps policy and reference comparable.
        targets: A part, whose linear layers all get a LoRA, or names of modules as PEFT takes them.
        modules_to_save: Parts or modules that train in full beside the LoRA; the reference keeps
            their first weights.
    """

    r: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: str | Sequence[str] = "language_model"
    modules_to_save: Sequence[str] = ()


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part."""

    part: Part
    trainable: int
    total: int


def part_of(name: str, parts: Mapping[Part, Sequence[str]]) -> Part:
    """Returns the part that a parameter or module of a model belongs to.

    The longest matching prefix wins; what no prefix matches is called ``other``.
    """
    name = name.removeprefix(PEFT_PREFIX)
    matches = [
        (len(prefix), part)
        for part, prefixes in parts.items()
        for prefix in prefixes
        if prefix == "" or name == prefix or name.startswith(prefix + ".")
    ]
    return max(matches)[1] if matches else "other"


def freeze_parts(
    model: nn.Module, family: AdapterFamily, freeze: Iterable[Part] | None
) -> tuple[Part, ...]:
    """Freezes parts of a model and makes the others trainable.

    Args:
        model: The loaded model, before any LoRA.
        family: Knows the parts.
        freeze: Parts to freeze; None for the family's default.

    Returns:
        The frozen parts.

    Raises:
        ModelError: If the model has no such part, or nothing is left to train.
    """
    frozen = tuple(family.default_freeze if freeze is None else freeze)
    _check_parts(frozen, family, "model.freeze")
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(part_of(name, family.parts) not in frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        found = f"every part of the model is frozen ({', '.join(frozen)})"
        raise ModelError(Problem("model.freeze", found, "Leave one part out of the list"))
    return frozen


def add_lora(model: nn.Module, family: AdapterFamily, settings: LoraSettings) -> Any:
    """Returns the model with LoRA matrices; only they, and `modules_to_save`, train."""
    from peft import LoraConfig, get_peft_model

    targets = settings.targets
    if isinstance(targets, str) and targets in family.parts:
        targets = linear_layers(model, family, targets)
    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=_modules_to_save(settings.modules_to_save, family),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def linear_layers(model: nn.Module, family: AdapterFamily, part: Part) -> list[str]:
    """Returns the names of the linear layers of a part, the output head left out."""
    _, head = base_and_head(model)
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module is not head
        and part_of(name, family.parts) == part
    ]
    if not names:
        found = f"the part '{part}' has no linear layer"
        raise ModelError(Problem("model.lora.targets", found, "Name another part or modules"))
    return names


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout of a model to 0, so that policy and reference see the same network."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment] # a float on attention layers


def keep_in_float32(model: nn.Module) -> None:
    """Turns trainable weights into float32, for mixed precision.

    Autocast computes in bfloat16 or float16 all the same; but an update of 1e-6 would vanish in
    the rounding of a weight that is stored in bfloat16.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def count_parameters(model: nn.Module, family: AdapterFamily) -> list[PartCount]:
    """Returns the trainable and all parameters of each part, in the order of the family."""
    counts = {part: [0, 0] for part in (*family.parts, "other")}
    for name, parameter in model.named_parameters():
        count = counts[part_of(name, family.parts)]
        count[0] += parameter.numel() if parameter.requires_grad else 0
        count[1] += parameter.numel()
    return [PartCount(part, *count) for part, count in counts.items() if count[1]]


def _modules_to_save(names: Sequence[str], family: AdapterFamily) -> list[str] | None:
    """Turns parts into the names of their modules, which PEFT matches by their end."""
    modules = [
        prefix.rpartition(".")[2] for name in names for prefix in family.parts.get(name, (name,))
    ]
    return modules or None


def _check_parts(names: Iterable[Part], family: AdapterFamily, where: str) -> None:
    problems = [
        Problem(
            where,
            f"a model of the family '{family.name}' has no part '{name}'"
            f"{suggestion(name, family.parts)}",
            f"Choose from {', '.join(family.parts)}",
        )
        for name in names
        if name not in family.parts
    ]
    if problems:
        raise ModelError(problems)

"""A learning rate of its own for each part of a model."""

from collections.abc import Mapping
from typing import Any

from torch import nn, optim

from ..adapter import AdapterFamily, Part
from ..errors import ModelError, Problem, RecipeError
from ..modeling.parts import part_of
from ..plugins import suggestion

__all__ = ["check_learning_rates", "check_optimizer", "set_learning_rates"]


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Raise ModelError if an optimizer updates none of the trainable weights of a model.

    An optimizer that a user made before an adapter was added holds weights that no longer train.
    """
    if optimizer is None:
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(p.requires_grad and id(p) in held for p in model.parameters()):
        problem = "the optimizer holds none of the weights that train"
        remedy = "Remove it, or make it from the trainable parameters of the final model"
        raise ModelError(Problem("optimizers", problem, remedy))


def check_learning_rates(rates: Mapping[Part, float], family: AdapterFamily) -> None:
    """Raise RecipeError if a part does not exist or a rate is no positive number."""
    problems = [
        Problem(
            f"train.learning_rates.{part}",
            f"a model of the family '{family.name}' has no part '{part}'"
            f"{suggestion(part, family.parts)}",
            f"Choose from {', '.join(family.parts)}",
        )
        for part in rates
        if part not in family.parts
    ]
    problems += [
        Problem(f"train.learning_rates.{part}", f"found {rate!r}", "Give a number >= 0")
        for part, rate in rates.items()
        if isinstance(rate, bool) or not isinstance(rate, int | float) or rate < 0
    ]
    if problems:
        raise RecipeError(problems)


def set_learning_rates(
    optimizer: optim.Optimizer,
    model: nn.Module,
    rates: Mapping[Part, float],
    family: AdapterFamily,
) -> None:
    """Split the groups of a fresh optimizer by part, in place.

    Args:
        optimizer: Made by the trainer, before its first step and before any schedule.
        model: The scoring module that its parameters belong to.
        rates: Part -> learning rate; the others keep the optimizer's.
        family: Knows the parts.
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
    # the log shows the rate of the first group: let it be the common one
    optimizer.param_groups[:] = sorted(groups, key=lambda group: group["lr"] != common)

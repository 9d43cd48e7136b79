"""Separate learning rates for the parts of a model, and checks of optimizers from Python."""

from collections.abc import Mapping
from typing import Any

from torch import nn, optim

from ..adapter import AdapterFamily, Part
from ..errors import ModelError, Problem, RecipeError
from ..modeling.parts import part_of
from ..plugins import suggestion

__all__ = ["check_learning_rates", "check_optimizer", "set_learning_rates"]


def check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Check that an optimizer updates trainable weights of a model.

    An optimizer that was created before a LoRA adapter was added only has weights that are frozen.

    Raises:
        ModelError: If it updates none of them.
    """
    if optimizer is None:
        return
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(p.requires_grad and id(p) in held for p in model.parameters()):
        problem = "the optimizer has none of the trainable weights"
        remedy = "Remove it, or create it from the trainable parameters of the final model"
        raise ModelError(Problem("optimizers", problem, remedy))


def check_learning_rates(rates: Mapping[Part, float], family: AdapterFamily) -> None:
    """Check that the parts exist and that their learning rates are numbers.

    Raises:
        RecipeError: If some are not; lists all problems.
    """
    problems = [
        Problem(
            f"train.learning_rates.{part}",
            f"models of the family '{family.name}' have no part '{part}'"
            f"{suggestion(part, family.parts)}",
            f"Choose from {', '.join(family.parts)}",
        )
        for part in rates
        if part not in family.parts
    ]
    problems += [
        Problem(f"train.learning_rates.{part}", f"found {rate!r}", "Use a number >= 0")
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
    """Split the parameter groups of a new optimizer by part and set their learning rates, in place.

    Args:
        optimizer: A new optimizer, before its first step and without a scheduler.
        model: The `LogpModel` with the parameters of the optimizer.
        rates: Part -> learning rate; other parts keep that of the optimizer.
        family: The model family, which has the parts.
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

"""MPO, Mixed Preference Optimization: a weighted sum of other losses.

The paper mixes a preference loss (DPO), a quality loss on single responses (BCO) and a generation
loss (the NLL of the chosen response). Here any losses can be mixed; a loss with the unit
``response`` is computed on the chosen responses. Logged are the rewards of the first pair loss, and
no terms of the parts.

Source: arXiv 2411.10442.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..plugins import load_loss
from ..records import LossOutput, PairLogps
from .base import Loss, require_nonnegative

__all__ = ["LOSS", "MPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class MPOLossConfig:
    """Parameters of MPO; the defaults are the paper's."""

    losses: Mapping[str, float] = field(
        default_factory=lambda: {"dpo": 0.8, "bco": 0.2, "sft": 1.0}
    )
    """Weight of each loss by its name, >= 0."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of each loss by its name; missing ones have the defaults of that loss."""

    def __post_init__(self) -> None:
        for name, weight in self.losses.items():
            require_nonnegative(f"losses.{name}", weight)
        absent = set(self.parameters) - set(self.losses)
        if absent:
            names = ", ".join(sorted(absent))
            raise ValueError(f"parameters contains {names}, and losses does not")
        parts = self.parts()
        if not any(loss.unit == "pair" for loss, _, _ in parts):
            raise ValueError("losses must contain a pair loss with a weight, for example dpo: 1.0")
        for loss, config, _ in parts:
            if loss.initial_state is not None or loss.needs_labels or loss.name == LOSS.name:
                raise ValueError(f"losses.{loss.name} cannot be a part of a mixture")
            if getattr(config, "tau_good", None) == "median":
                raise ValueError(f"parameters.{loss.name}.tau_good must be a number in a mixture")

    def parts(self) -> list[tuple[Loss, Any, float]]:
        """Return (loss, config, weight) of each loss with a weight above 0."""
        return [
            (load_loss(name), _config(name, self.parameters.get(name, {})), weight)
            for name, weight in self.losses.items()
            if weight > 0
        ]


def _config(name: str, parameters: Mapping[str, Any]) -> Any:
    """Return the config of a part, checked as if the loss were used alone."""
    from pydantic import TypeAdapter, ValidationError

    loss = load_loss(name)
    unknown = set(parameters) - {field.name for field in fields(loss.config)}
    if unknown:
        raise ValueError(f"parameters.{name}: unknown parameter '{min(unknown)}'")
    try:
        return TypeAdapter(loss.config).validate_python(dict(parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["parameters", name, *map(str, first["loc"][:1])])
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error


def _compute(pairs: PairLogps, config: MPOLossConfig) -> LossOutput:
    total, first = pairs.policy_chosen.sum.new_zeros(pairs.weight.shape), None
    for loss, parameters, weight in config.parts():
        is_pair_loss = loss.unit == "pair"
        output = loss.compute(pairs if is_pair_loss else pairs.policy_chosen, parameters)
        total = total + weight * output.per_unit
        first = first or (output if is_pair_loss else None)
    assert first is not None  # the config has a pair loss
    return LossOutput(
        per_unit=total,
        chosen_rewards=first.chosen_rewards,
        rejected_rewards=first.rejected_rewards,
        reward_margin=first.reward_margin,
    )


def _any_part(property_name: str) -> Callable[[MPOLossConfig], bool]:
    """Return a function that says whether any part has a property, such as ``needs_scores``."""
    return lambda config: any(
        getattr(loss, property_name)(parameters) for loss, parameters, _ in config.parts()
    )


LOSS = Loss(
    name="mpo",
    config=MPOLossConfig,
    compute=_compute,
    needs_reference=_any_part("needs_reference"),
    needs_scores=_any_part("needs_scores"),
    needs_tokens=_any_part("needs_tokens"),
    batch_dependent=_any_part("batch_dependent"),
)

"""MPO, mixed preference optimisation: a weighted sum of losses of the shelf.

Source: arXiv 2411.10442, whose three parts are DPO, BCO and the NLL of the chosen answer.
Any other losses can be mixed; one of unit ``response`` is computed on the chosen answers. The log
shows the rewards of the first loss of pairs, and no terms of the parts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..plugins import load_loss
from ..records import LossOutput, PairLogps
from .base import Loss, require

__all__ = ["LOSS", "MPOLossConfig"]


@dataclass(frozen=True, kw_only=True)
class MPOLossConfig:
    """Parameters of MPO; the defaults are the paper's."""

    losses: Mapping[str, float] = field(
        default_factory=lambda: {"dpo": 0.8, "bco": 0.2, "sft": 1.0}
    )
    """Loss -> its weight, >= 0."""
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Loss -> its parameters; those left out take that loss's defaults."""

    def __post_init__(self) -> None:
        for name, weight in self.losses.items():
            require(f"losses.{name}", weight, lambda v: (v >= 0) & v.isfinite(), ">= 0 and finite")
        absent = set(self.parameters) - set(self.losses)
        if absent:
            raise ValueError(f"parameters name {', '.join(sorted(absent))}, which losses does not")
        parts = self.parts()
        if not any(loss.unit == "pair" for loss, _, _ in parts):
            raise ValueError("losses must hold a loss of pairs with a weight, for example dpo: 1.0")
        for loss, config, _ in parts:
            if loss.memory is not None or loss.name == LOSS.name:
                raise ValueError(f"losses.{loss.name} cannot be a part of a mixture")
            if getattr(config, "tau_good", None) == "median":
                raise ValueError(f"parameters.{loss.name}.tau_good must be a number in a mixture")

    def parts(self) -> list[tuple[Loss, Any, float]]:
        """Return each loss that has a weight, with its config and the weight."""
        return [
            (load_loss(name), _config(name, self.parameters.get(name, {})), weight)
            for name, weight in self.losses.items()
            if weight > 0
        ]


def _config(name: str, parameters: Mapping[str, Any]) -> Any:
    """Return a part's config; values are checked as those of a loss alone."""
    from pydantic import TypeAdapter, ValidationError

    loss = load_loss(name)
    unknown = set(parameters) - {field.name for field in fields(loss.config)}
    if unknown:
        raise ValueError(f"parameters.{name}: there is no '{min(unknown)}'")
    try:
        return TypeAdapter(loss.config).validate_python(dict(parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(["parameters", name, *map(str, first["loc"][:1])])
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error


def _compute(pairs: PairLogps, config: MPOLossConfig) -> LossOutput:
    total, rewards = pairs.policy_chosen.sum.new_zeros(pairs.weight.shape), None
    for loss, parameters, weight in config.parts():
        of_pairs = loss.unit == "pair"
        output = loss.compute(pairs if of_pairs else pairs.policy_chosen, parameters)
        total = total + weight * output.per_unit
        rewards = rewards or (output if of_pairs else None)
    assert rewards is not None  # one loss of pairs is there
    return LossOutput(
        per_unit=total,
        chosen_rewards=rewards.chosen_rewards,  # those of the first loss of pairs
        rejected_rewards=rewards.rejected_rewards,
    )


def _any(question: str) -> Callable[[MPOLossConfig], bool]:
    """Answer yes where any part does."""
    return lambda config: any(
        getattr(loss, question)(parameters) for loss, parameters, _ in config.parts()
    )


LOSS = Loss(
    name="mpo",
    config=MPOLossConfig,
    unit="pair",
    compute=_compute,
    needs_reference=_any("needs_reference"),
    needs_scores=_any("needs_scores"),
    batch_dependent=_any("batch_dependent"),
)

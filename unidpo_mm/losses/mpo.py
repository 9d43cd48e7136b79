"""MPO, mixed preference optimisation: a weighted sum of losses of the shelf.

Source: arXiv 2411.10442, whose three parts are DPO, BCO and the NLL of the chosen answer.
Any other losses can be mixed; one of unit ``response`` is computed on the chosen answers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        parts = [loss for loss, _, _ in self.parts()]
        if not any(loss.unit == "pair" for loss in parts):
            raise ValueError("losses must hold a loss of pairs, for example dpo")
        for loss in parts:
            if loss.memory is not None or loss.name == LOSS.name:
                raise ValueError(f"losses.{loss.name} cannot be a part of a mixture")

    def parts(self) -> list[tuple[Loss, Any, float]]:
        """Returns each loss with its config and its weight."""
        return [
            (load_loss(name), _config(name, self.parameters.get(name, {})), weight)
            for name, weight in self.losses.items()
        ]


def _config(name: str, parameters: Mapping[str, Any]) -> Any:
    try:
        return load_loss(name).config(**parameters)
    except TypeError as error:  # a parameter that the loss does not have
        raise ValueError(f"parameters.{name}: {str(error).split('() ')[-1]}") from error


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
    """Answers yes where any part with a weight does."""
    return lambda config: any(
        weight > 0 and getattr(loss, question)(parameters)
        for loss, parameters, weight in config.parts()
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

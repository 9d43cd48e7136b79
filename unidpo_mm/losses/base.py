"""The declaration of a loss, by which trainer and step need no loss-specific code."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import torch
from torch import Tensor

from ..records import LossOutput, PairLogps, Unit

__all__ = [
    "FINITE",
    "NONNEGATIVE",
    "POSITIVE",
    "Loss",
    "LossConfig",
    "Nonnegative",
    "Positive",
    "Rule",
    "Unit",
    "Value",
    "always",
    "fraction",
    "implicit_rewards",
    "loss_output",
    "never",
    "require",
    "require_fraction",
    "require_nonnegative",
    "require_positive",
    "token_rewards",
]


Value = float | Tensor
"""A parameter: a number, or a tensor [P] with the value of each pair's data source."""


def always(config: Any) -> bool:
    """Return True for every configuration."""
    return True


def never(config: Any) -> bool:
    """Return False for every configuration."""
    return False


@dataclass(frozen=True)
class Rule:
    """A range of a parameter; as an annotation of its type, `LossConfig` checks it.

    Attributes:
        holds: Returns where a tensor is in the range.
        text: The range, for messages.
    """

    holds: Callable[[Tensor], Tensor]
    text: str


POSITIVE = Rule(lambda value: (value > 0) & value.isfinite(), "> 0 and finite")
NONNEGATIVE = Rule(lambda value: (value >= 0) & value.isfinite(), ">= 0 and finite")
FINITE = Rule(Tensor.isfinite, "finite")


def fraction(below: float = 1.0) -> Rule:
    """Return the range [0, `below`)."""
    return Rule(lambda value: (value >= 0) & (value < below), f"in [0, {below:g})")


Positive = Annotated[Value, POSITIVE]
Nonnegative = Annotated[Value, NONNEGATIVE]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Base class of loss parameters, which may be tensors [P] and whose types may have a `Rule`."""

    # pydantic reads this name of a standard dataclass, and would take an annotation for a field
    __pydantic_config__ = {"arbitrary_types_allowed": True}  # noqa: RUF012

    def __post_init__(self) -> None:
        """Check the range of each parameter that declares one.

        Raises:
            ValueError: If a parameter is out of its range.
        """
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for rule in getattr(hint, "__metadata__", ()):
                if isinstance(rule, Rule):
                    require(name, getattr(self, name), rule.holds, rule.text)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """One loss; its module exports it as `LOSS`.

    Attributes:
        name: The name of the module.
        config: A frozen dataclass with the parameters of the loss and their defaults.
        unit: What the mean of a step is taken over, ``pair`` (the default) or ``response``.
        compute: (`PairLogps`, config) -> `LossOutput` for pairs; (`SequenceLogps`, config) ->
            `LossOutput` for responses. A stateful loss takes its state as third argument.
        terms: Names of the side results in `LossOutput.terms`; `compute` always returns all of
            them.
        needs_reference: Whether a configuration uses the log-probs of the reference model; by
            default every one does.
        needs_scores: Whether a configuration uses the quality scores of the responses.
        needs_tokens: Whether a configuration uses the log-prob of each token,
            `SequenceLogps.tokens`, and not only their sum.
        needs_labels: Whether the units are responses labeled good or bad, and not preferences: then
            the first response of each of the `PairLogps` is the labeled one. Preferences are read
            as two labels each.
        needs_mismatched: For such losses, whether a configuration compares the labeled responses
            with mismatched ones; otherwise both responses of each of the `PairLogps` are the same.
        batch_dependent: Whether the loss of a pair depends on the other pairs of its micro-batch,
            so that gradient accumulation and the number of processes change the result.
        initial_state: Creates what a stateful loss remembers from batch to batch of one run: a
            dataclass of numbers, which checkpoints store. `None` for functions of their batch.
    """

    name: str
    config: type[Any]
    unit: Unit = "pair"
    compute: Callable[..., LossOutput]
    terms: tuple[str, ...] = ()
    needs_reference: Callable[[Any], bool] = always
    needs_scores: Callable[[Any], bool] = never
    needs_tokens: Callable[[Any], bool] = never
    needs_labels: bool = False
    needs_mismatched: Callable[[Any], bool] = never
    batch_dependent: Callable[[Any], bool] = never
    initial_state: Callable[[], Any] | None = None

    @property
    def noun(self) -> str:
        """The name of a unit, for messages."""
        return "labeled response" if self.needs_labels else self.unit


def require(name: str, value: Any, holds: Callable[[Any], Any], rule: str) -> None:
    """Check a parameter, a number or a tensor [P].

    A tensor on an accelerator is not read, because that would wait for it in every step. Its
    entries are the numbers of data sources, which were checked when the loss was configured.

    Raises:
        ValueError: If `holds(value)` is false anywhere; the message has the rule and the value.
    """
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return
    if not bool(torch.as_tensor(holds(torch.as_tensor(value, dtype=torch.float64))).all()):
        raise ValueError(f"{name} must be {rule}, found {value}")


def require_positive(name: str, value: Any) -> None:
    """Check a parameter that must be > 0 and finite, a number or a tensor [P]."""
    require(name, value, POSITIVE.holds, POSITIVE.text)


def require_nonnegative(name: str, value: Any) -> None:
    """Check a parameter that must be >= 0 and finite, a number or a tensor [P]."""
    require(name, value, NONNEGATIVE.holds, NONNEGATIVE.text)


def require_fraction(name: str, value: Any, *, below: float = 1.0) -> None:
    """Check a parameter in [0, `below`), a number or a tensor [P]."""
    rule = fraction(below)
    require(name, value, rule.holds, rule.text)


def implicit_rewards(
    pairs: PairLogps, *, beta: Value, length_norm: bool = False
) -> tuple[Tensor, Tensor]:
    """Return DPO's implicit rewards, beta times the log-ratio of policy and reference.

    Args:
        pairs: P pairs with log-probs of the reference.
        beta: Reward scale.
        length_norm: Whether to use mean log-probs per token instead of sums.

    Returns:
        The rewards of the chosen and of the rejected responses, [P] each.
    """
    assert pairs.reference_chosen is not None  # Loss.needs_reference
    assert pairs.reference_rejected is not None
    which = "mean" if length_norm else "sum"
    chosen = getattr(pairs.policy_chosen, which) - getattr(pairs.reference_chosen, which)
    rejected = getattr(pairs.policy_rejected, which) - getattr(pairs.reference_rejected, which)
    return beta * chosen, beta * rejected


def token_rewards(pairs: PairLogps, *, beta: Value) -> tuple[Tensor, Tensor]:
    """Return the part of each token in DPO's implicit rewards.

    Args:
        pairs: P pairs with the log-probs of tokens under policy and reference.
        beta: Reward scale.

    Returns:
        The rewards of the tokens of the chosen [P, T] and of the rejected responses [P, T], 0 after
        the last token.
    """
    sides = (
        (pairs.policy_chosen, pairs.reference_chosen),
        (pairs.policy_rejected, pairs.reference_rejected),
    )
    rewards = []
    for policy, reference in sides:
        assert reference is not None  # Loss.needs_reference
        assert policy.tokens is not None  # Loss.needs_tokens
        assert reference.tokens is not None
        scale = beta.unsqueeze(-1) if isinstance(beta, Tensor) else beta
        rewards.append(scale * (policy.tokens - reference.tokens))
    return rewards[0], rewards[1]


def loss_output(
    per_unit: Tensor, chosen_rewards: Tensor, rejected_rewards: Tensor, **terms: Tensor
) -> LossOutput:
    """Return the output of a pair loss, with rewards and terms detached."""
    return LossOutput(
        per_unit=per_unit,
        chosen_rewards=chosen_rewards.detach(),
        rejected_rewards=rejected_rewards.detach(),
        terms={name: values.detach() for name, values in terms.items()},
        reward_margin=chosen_rewards - rejected_rewards,
    )

"""The reference model: what the policy was before training, in one class per kind."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..adapter import Adapter
from ..errors import ModelError, Problem
from ..records import GroupBatch
from .scoring import ScoringModel, score, unwrap_peft
from .vision import PictureFeatures, trains_vision

__all__ = [
    "FrozenCopy",
    "LoraOff",
    "Reference",
    "ReferenceKind",
    "build_reference",
    "can_switch_off",
]

ReferenceKind = Literal["auto", "frozen_copy", "lora_off", "none"]
"""Kinds that run a model with every batch."""


class Reference(Protocol):
    """Gives reference log-probabilities, without gradient and without dropout."""

    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, pictures: PictureFeatures | None = None
    ) -> Tensor:
        """Returns [M].

        Args:
            policy: The prepared scoring module, for kinds that are part of it.
            batch: What to score.
            pictures: Shared by the passes over the batch.
        """
        ...


class FrozenCopy:
    """A second model with the weights of the first step.

    Args:
        scorer: The copy; it is frozen and set to evaluation.
        adapter: Turns batches into forward inputs.
        own_vision: Whether its tower is another one than the policy's.
    """

    def __init__(self, scorer: ScoringModel, adapter: Adapter, *, own_vision: bool = False) -> None:
        self.scorer = scorer.requires_grad_(False).eval()
        self.adapter = adapter
        self.own_vision = own_vision

    @torch.no_grad()
    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, pictures: PictureFeatures | None = None
    ) -> Tensor:
        """Returns the copy's log-probabilities [M]."""
        self.scorer.to(batch.row.device)
        return score(self.scorer, self.adapter, batch, None if self.own_vision else pictures)


class LoraOff:
    """The policy without its LoRA: no second model."""

    def __init__(self, scorer: ScoringModel, adapter: Adapter) -> None:
        self.peft_model: Any = scorer.model
        self.adapter = adapter

    @torch.no_grad()
    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, pictures: PictureFeatures | None = None
    ) -> Tensor:
        """Returns the log-probabilities [M] with the LoRA switched off."""
        with self.peft_model.disable_adapter(), _evaluating(policy):
            return score(policy, self.adapter, batch, pictures)


def build_reference(kind: ReferenceKind, scorer: ScoringModel, adapter: Adapter) -> Reference:
    """Returns the reference that the policy is now, to be called before the first step.

    Args:
        kind: ``auto`` takes LoRA-off where only a LoRA trains, else a frozen copy.
        scorer: The policy, not yet prepared.
        adapter: Turns batches into forward inputs.

    Raises:
        ModelError: If the kind does not fit the model.
    """
    if kind == "none":
        found = "the loss needs a reference and train.reference is 'none'"
        remedy = "Set train.reference to auto, or choose a loss without one (simpo, sft)"
        raise ModelError(Problem("train.reference", found, remedy))
    outside = _trainable_outside_lora(scorer.model)
    if kind == "lora_off" or (kind == "auto" and can_switch_off(scorer)):
        if outside is None or outside:
            raise ModelError(_no_lora_off(outside))
        return LoraOff(scorer, adapter)
    own_vision = scorer.takes_features and trains_vision(unwrap_peft(scorer.model))
    return FrozenCopy(_copy(scorer), adapter, own_vision=own_vision)


def can_switch_off(scorer: ScoringModel) -> bool:
    """Whether the policy without its LoRA is what it was before training."""
    return _trainable_outside_lora(scorer.model) == []


def _copy(scorer: ScoringModel) -> ScoringModel:
    """Returns a copy that shares the weights that never change with the policy."""
    frozen = {id(p): p for p in scorer.parameters() if not p.requires_grad}
    return copy.deepcopy(scorer, dict(frozen))


def _trainable_outside_lora(model: nn.Module) -> list[str] | None:
    """Returns trainable weights that a switched-off LoRA leaves changed; None without a LoRA."""
    if not hasattr(model, "disable_adapter"):
        return None
    inside = (".lora_", ".modules_to_save.")
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not any(mark in name for mark in inside)
    ]


def _no_lora_off(outside: list[str] | None) -> Problem:
    if outside is None:
        found = "train.reference is 'lora_off' and the model has no LoRA"
        return Problem("train.reference", found, "Add model.lora, or set it to frozen_copy")
    names = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
    found = f"train.reference is 'lora_off' and weights outside the LoRA train ({names})"
    return Problem(
        "train.reference",
        found,
        "Name their parts in model.lora.modules_to_save, freeze them, or set it to frozen_copy",
    )


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Sets a module to evaluation for a while."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)

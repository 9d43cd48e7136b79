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
from .scoring import ScoringModel, score

__all__ = ["FrozenCopy", "LoraOff", "Reference", "ReferenceKind", "build_reference"]

ReferenceKind = Literal["auto", "frozen_copy", "lora_off", "none"]


class Reference(Protocol):
    """Gives reference log-probabilities, without gradient and without dropout."""

    def token_logps(self, policy: nn.Module, batch: GroupBatch) -> Tensor:
        """Returns [M]; `policy` is the prepared scoring module, for kinds that are part of it."""
        ...


class FrozenCopy:
    """A second model with the weights of the first step.

    Args:
        scorer: The copy; it is frozen and set to evaluation.
        adapter: Turns batches into forward inputs.
    """

    def __init__(self, scorer: ScoringModel, adapter: Adapter) -> None:
        self.scorer = scorer.requires_grad_(False).eval()
        self.adapter = adapter

    @torch.no_grad()
    def token_logps(self, policy: nn.Module, batch: GroupBatch) -> Tensor:
        """Returns the copy's log-probabilities [M]."""
        self.scorer.to(batch.row.device)
        return score(self.scorer, self.adapter, batch)


class LoraOff:
    """The policy without its LoRA: no second model."""

    def __init__(self, scorer: ScoringModel, adapter: Adapter) -> None:
        self.peft_model: Any = scorer.model
        self.adapter = adapter

    @torch.no_grad()
    def token_logps(self, policy: nn.Module, batch: GroupBatch) -> Tensor:
        """Returns the log-probabilities [M] with the LoRA switched off."""
        with self.peft_model.disable_adapter(), _evaluating(policy):
            return score(policy, self.adapter, batch)


def build_reference(
    kind: ReferenceKind, scorer: ScoringModel, adapter: Adapter, *, needed: bool
) -> Reference | None:
    """Returns the reference of a run, to be called before the first step.

    Args:
        kind: ``auto`` takes LoRA-off where only a LoRA trains, else a frozen copy.
        scorer: The policy, not yet prepared.
        adapter: Turns batches into forward inputs.
        needed: Whether the loss uses a reference; if not there is none.

    Raises:
        ModelError: If the kind does not fit the model or the loss.
    """
    if not needed:
        return None
    if kind == "none":
        found = "the loss needs a reference and train.reference is 'none'"
        remedy = "Set train.reference to auto, or choose a loss without one (simpo, sft)"
        raise ModelError(Problem("train.reference", found, remedy))
    outside = _trainable_outside_lora(scorer.model)
    if kind == "lora_off" or (kind == "auto" and outside == []):
        if outside is None or outside:
            raise ModelError(_no_lora_off(outside))
        return LoraOff(scorer, adapter)
    return FrozenCopy(copy.deepcopy(scorer), adapter)


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

"""Kinds of reference models, one class each.

The reference is the policy as it was before training. It can be a second model in memory; but if
only a LoRA adapter trains, it can also be the policy without the adapter, or with a frozen copy of
it. `resolve_kind` chooses the cheapest kind that is exact.
"""

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ...adapter import Adapter
from ...cache.keys import weights_fingerprint
from ...errors import ModelError, Problem
from ...records import GroupBatch
from ..logp_model import LogpModel, compute_logps, evaluating, unwrap_peft
from ..peft_models import (
    active_adapter,
    adapter_tensors,
    can_copy_adapter,
    changes_base_weights,
    copy_adapter,
    describe_adapter,
    is_peft_model,
    is_zero,
    using_adapter,
)
from ..vision import MediaFeatures, trains_vision, vision_weights

__all__ = [
    "FrozenCopy",
    "FrozenLora",
    "LoraOff",
    "Reference",
    "ReferenceKind",
    "ResolvedKind",
    "StoredCopy",
    "make_reference",
    "reference_digest",
    "resolve_kind",
    "trains_adapter_only",
]

logger = logging.getLogger(__name__)

ReferenceKind = Literal["auto", "frozen_copy", "lora_off", "none"]
"""Kinds that run a model for every batch, as users choose them."""

ResolvedKind = Literal["frozen_copy", "frozen_lora", "lora_off"]
"""Kinds of references; ``frozen_lora`` is a frozen copy of the LoRA adapter on the same base."""


class Reference(Protocol):
    """A source of reference log-probs, without gradient and dropout."""

    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        """Return the log-probs [M] of a batch's targets.

        Args:
            policy: The prepared policy, for kinds that are part of it.
            batch: The batch.
            media: Image and video features that the passes over the batch share.
        """
        ...


class FrozenCopy:
    """A second model, with the weights of the policy before training.

    Args:
        logp_model: The copy; it is frozen and set to evaluation mode.
        adapter: Turns batches into forward inputs.
        separate_vision: Whether its image features differ from the policy's.
    """

    def __init__(
        self, logp_model: LogpModel, adapter: Adapter, *, separate_vision: bool = False
    ) -> None:
        self.logp_model = logp_model.requires_grad_(False).eval()
        self.adapter = adapter
        self.separate_vision = separate_vision

    @torch.no_grad()
    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        """Return the copy's log-probs [M]."""
        self.logp_model.to(batch.targets.row.device)
        return compute_logps(
            self.logp_model, self.adapter, batch, None if self.separate_vision else media
        )


class _OtherAdapter:
    """The policy with another LoRA adapter, or none, on the same base model.

    Args:
        logp_model: The policy, with a PEFT model inside.
        adapter: Turns batches into forward inputs.
        name: The LoRA adapter to use; `None` for the base model.
    """

    def __init__(self, logp_model: LogpModel, adapter: Adapter, name: str | None = None) -> None:
        self.peft_model: Any = logp_model.model
        self.adapter = adapter
        self.name = name
        self.separate_vision = _adapts_vision(logp_model)

    @torch.no_grad()
    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        """Return the log-probs [M] with the other adapter."""
        shared = None if self.separate_vision else media
        with using_adapter(self.peft_model, self.name), evaluating(policy):
            return compute_logps(policy, self.adapter, batch, shared)


class FrozenLora(_OtherAdapter):
    """The policy with a LoRA adapter that does not train."""

    name: str


class LoraOff(_OtherAdapter):
    """The policy with its LoRA adapter switched off: the base model, without a second model.

    Raises:
        ModelError: If the LoRA adapter changed the weights of the base model when it was created.
    """

    def __init__(self, logp_model: LogpModel, adapter: Adapter) -> None:
        super().__init__(logp_model, adapter)
        changed_by = changes_base_weights(self.peft_model)
        if changed_by is not None:
            problem = (
                f"init_lora_weights='{changed_by}' changed the base model's weights, so the model "
                "without its LoRA adapter is not the base model"
            )
            remedy = "Set train.reference to auto, or pass the base model as ref_model"
            raise ModelError(Problem("train.reference", problem, remedy))


@dataclass(frozen=True)
class StoredCopy:
    """How the weights of a frozen copy are stored.

    Attributes:
        products: The number format of linear and convolutional layers. Autocast converts their
            weights to it for every product, so the numbers are the same. `None` for that of the
            policy. All other weights keep the format of the policy, because it affects results.
        everything: The number format of all weights, where those of the policy are converted as a
            whole. Such a copy shares weights only if the policy's own are converted in place.
        buffers: Whether buffers are converted as well.
        shares: Whether weights that never change are those of the policy. Weights that are divided
            among processes later cannot be shared.
    """

    products: torch.dtype | None = None
    everything: torch.dtype | None = None
    buffers: bool = False
    shares: bool = True


def make_reference(
    kind: ResolvedKind,
    logp_model: LogpModel,
    adapter: Adapter,
    *,
    stored: StoredCopy | None = None,
) -> Reference:
    """Return a reference of a resolved kind; does not need the values of the weights.

    Args:
        kind: The kind.
        logp_model: The policy.
        adapter: Turns batches into forward inputs.
        stored: How a frozen copy is stored; `None` for the same formats as the policy.
    """
    if kind == "lora_off":
        return LoraOff(logp_model, adapter)
    if kind == "frozen_lora":
        return FrozenLora(logp_model, adapter, copy_adapter(logp_model.model))
    separate_vision = logp_model.takes_features and trains_vision(unwrap_peft(logp_model.model))
    stored = stored or StoredCopy()
    copied = copy.deepcopy(
        logp_model, {**_converted(logp_model, stored), **_shared(logp_model, stored)}
    )
    if stored.everything is not None:
        if stored.buffers:
            copied.to(stored.everything)
        for parameter in copied.parameters():
            parameter.data = parameter.data.to(stored.everything)
    return FrozenCopy(copied, adapter, separate_vision=separate_vision)


PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def _shared(logp_model: LogpModel, stored: StoredCopy) -> dict[int, nn.Parameter]:
    """Return the weights that the copy shares with the policy, by their identity."""
    if not stored.shares:
        return {}
    return {id(p): p for p in logp_model.parameters() if not p.requires_grad}


def _converted(logp_model: LogpModel, stored: StoredCopy) -> Mapping[int, nn.Parameter]:
    """Return the weights that the copy stores in another format, by the identity of the original.

    A weight that is also used outside of products, such as a tied embedding, keeps its format.
    """
    if stored.products is None or stored.everything is not None:
        return {}
    owners: dict[int, list[nn.Module]] = {}
    for module in logp_model.modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(module)
    return {
        id(p): nn.Parameter(p.detach().to(stored.products), requires_grad=False)
        for p in logp_model.parameters()
        if p.requires_grad and all(isinstance(owner, PRODUCTS) for owner in owners[id(p)])
    }


def resolve_kind(kind: ReferenceKind, logp_model: LogpModel) -> ResolvedKind:
    """Return the kind of reference that ``auto`` means for a policy.

    ``auto`` reproduces the policy before training in the cheapest way: the LoRA adapter switched
    off while it is exactly zero, else a frozen copy of the LoRA adapter, else a frozen copy that
    shares all frozen weights. The decision needs the values of the weights.

    Raises:
        ModelError: If the chosen kind does not fit the model.
    """
    if kind == "none":
        problem = "the loss needs a reference and train.reference is 'none'"
        remedy = "Set train.reference to auto, or choose a loss without one (simpo, sft)"
        raise ModelError(Problem("train.reference", problem, remedy))
    model: Any = logp_model.model
    if kind == "lora_off":
        _check_lora_off(model)
    if kind != "auto":
        return kind
    if not trains_adapter_only(logp_model):
        return "frozen_copy"
    if is_zero(model):
        return "lora_off"
    return "frozen_lora" if can_copy_adapter(model) else "frozen_copy"


def trains_adapter_only(logp_model: LogpModel) -> bool:
    """Return whether all trainable weights belong to PEFT adapters, so a copy of them is cheap."""
    return is_peft_model(logp_model.model) and not _trainable_outside_adapter(logp_model.model)


def reference_digest(reference: Reference | None) -> str:
    """Return a digest of what a run's reference adds to the base model.

    ``base`` means no LoRA adapter, or one that changes nothing. The weights of the base model are
    not part of the digest. Call it before the weights are sharded.
    """
    source = getattr(reference, "source", reference)
    if getattr(source, "starts_at_base", False):  # a new LoRA adapter is random, and has no effect
        return "base"
    if isinstance(source, FrozenLora):
        return _digest_of(source.peft_model, source.name)
    model: Any = source.logp_model.model if isinstance(source, FrozenCopy) else None
    if is_peft_model(model) and not is_zero(model):
        return _digest_of(model, active_adapter(model))
    return "none" if source is None else "base"


def _digest_of(model: Any, name: str) -> str:
    tensors = ((key, tensor) for adapter, key, tensor in adapter_tensors(model) if adapter == name)
    return weights_fingerprint(tensors, describe_adapter(model, name))


def _adapts_vision(logp_model: LogpModel) -> bool:
    """Return whether an adapter changes the image features.

    Then policy and reference must not share them.
    """
    if not logp_model.takes_features or not is_peft_model(logp_model.model):
        return False
    vision = {id(tensor) for _, tensor in vision_weights(unwrap_peft(logp_model.model))}
    return any(id(tensor) in vision for _, _, tensor in adapter_tensors(logp_model.model))


def _trainable_outside_adapter(model: nn.Module) -> list[str]:
    inside = {id(tensor) for _, _, tensor in adapter_tensors(model)}
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and id(parameter) not in inside
    ]


def _check_lora_off(model: Any) -> None:
    """Raise ModelError if switching the LoRA adapter off does not give the base model."""
    where = "train.reference"
    if not is_peft_model(model):
        problem = "train.reference is 'lora_off' and the model has no LoRA adapter"
        raise ModelError(Problem(where, problem, "Add model.lora, or set it to frozen_copy"))
    outside = _trainable_outside_adapter(model)
    if outside:
        names = ", ".join(outside[:3]) + (", ..." if len(outside) > 3 else "")
        problem = (
            f"train.reference is 'lora_off' and other weights than the LoRA adapter train ({names})"
        )
        remedy = (
            "Add their parts to model.lora.modules_to_save, freeze them, or set it to frozen_copy"
        )
        raise ModelError(Problem(where, problem, remedy))
    if not is_zero(model):
        logger.warning(
            "train.reference is 'lora_off' and the LoRA adapter is not zero: the reference is the "
            "base model, so margins do not start at 0; 'auto' uses the model as it is now"
        )

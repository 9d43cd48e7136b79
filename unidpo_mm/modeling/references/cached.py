"""A reference model whose log-probs are computed once and then read from disk.

The reference does not change during training, so its log-probs of a response are the same in every
epoch and in every run with the same reference. They are computed when a response is needed for the
first time, by a frozen copy, by the policy without its LoRA adapter, or by the policy itself before
its first step. In the last case no second model is ever loaded.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...adapter import Adapter
from ...cache.keys import weights_fingerprint
from ...cache.reference_store import ReferenceStore
from ...distributed import gather_entries, true_everywhere
from ...errors import ModelError, Problem, UniDPOError
from ...kernels.packing import PREFIX
from ...records import GroupBatch
from ..logp_model import LogpModel, compute_logps, evaluating, unwrap_peft
from ..peft_models import active_adapter, adapter_tensors, describe_adapter, is_peft_model
from ..vision import MediaFeatures
from .kinds import FrozenCopy, FrozenLora, LoraOff, Reference

logger = logging.getLogger(__name__)

__all__ = [
    "CachedReference",
    "InitialPolicy",
    "gate_margin",
    "reference_fingerprint",
    "versions_of",
]

CODE = 1
"""Version of our code: increased by every change that moves a log-prob by more than rounding."""

ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-5}
LOW_PRECISION_ROUNDING = 1e-2


def gate_margin(compute_dtype: torch.dtype, *, apart: bool) -> float:
    """Return the rounding difference per token to allow for between log-probs of equal models.

    In another batch, sums run in another order. Even in the same batch, the weights of a second
    model have another alignment in memory, which changes the order in some matrix libraries. A gate
    that opens if the policy is below its reference must ignore such differences, or it would be
    open for half of the pairs before the first step.

    Args:
        compute_dtype: The format that matrix products run in.
        apart: Whether policy and reference compute differently: in other batches, or only one of
            them divided among processes.
    """
    if not apart:
        return ROUNDING[torch.float32]
    return ROUNDING.get(compute_dtype, LOW_PRECISION_ROUNDING)


class InitialPolicy:
    """The policy as its own reference, until its first training step.

    Attributes:
        trained: Set by the trainer once the policy has been trained.
    """

    def __init__(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.trained = False

    @torch.no_grad()
    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        """Return the policy's log-probs [M].

        Raises:
            ModelError: If the policy has been trained since.
        """
        if self.trained:
            problem = "responses are missing in the cache and the policy has been trained since"
            remedy = (
                "Start again with run.resume=never, or set train.reference to auto if only a LoRA "
                "adapter trains"
            )
            raise ModelError(Problem("train.reference", problem, remedy))
        with evaluating(policy):
            return compute_logps(policy, self.adapter, batch, media)


class CachedReference:
    """A reference that reads log-probs from a store and computes the missing ones.

    Args:
        source: The reference that computes them.
        store: Where they are stored.
    """

    def __init__(self, source: Reference, store: ReferenceStore) -> None:
        self.source = source
        self.store = store
        self.computed = 0
        self.full = False

    def token_logps(
        self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None = None
    ) -> Tensor:
        """Return the log-probs [M], from the store if it has every response of the batch."""
        keys = batch.cache_keys.responses
        if len(keys) != len(batch.scores):
            raise ValueError("a cached reference needs batches with keys: collate(keyed=True)")
        entries = self.store.get(keys)
        lengths = batch.targets.sizes
        fits = all(
            key in entries and len(entries[key]) == length
            for key, length in zip(keys, lengths, strict=True)
        )
        if not true_everywhere(fits):  # all run the model or none does
            return self._compute(policy, batch, media)
        logps = torch.cat([entries[key] for key in keys])
        return logps.to(batch.targets.row.device, non_blocking=True)

    def _compute(self, policy: nn.Module, batch: GroupBatch, media: MediaFeatures | None) -> Tensor:
        logps = self.source.token_logps(policy, batch, media)
        parts = logps.split(list(batch.targets.sizes))
        for entries in gather_entries(dict(zip(batch.cache_keys.responses, parts, strict=True))):
            self._keep(entries)
        return logps.float()

    def _keep(self, entries: Mapping[str, Tensor]) -> None:
        """Write entries; an error stops only a run that could not compute them again."""
        if self.full:
            return
        try:
            self.store.put(entries)
        except UniDPOError as error:
            if isinstance(self.source, InitialPolicy):
                raise
            logger.warning("continuing without a cache for the reference: %s", error)
            self.full = True
        self.computed += len(entries)


def reference_fingerprint(
    source: Reference, policy: LogpModel, *, compute_dtype: torch.dtype
) -> tuple[str, dict[str, Any]]:
    """Return the digest of a reference, and a readable description of it.

    Args:
        source: The reference. A frozen copy has weights of its own; the other kinds are the current
            policy with another LoRA adapter, or without one.
        policy: The policy, not yet prepared or sharded.
        compute_dtype: The format that matrix products run in.
    """
    model: Any = source.logp_model.model if isinstance(source, FrozenCopy) else policy.model
    settings = versions_of(unwrap_peft(model), compute_dtype)
    name = str(getattr(unwrap_peft(model).config, "_name_or_path", ""))
    about: dict[str, Any] = {"model": name, "settings": dict(settings)}
    adapter = _adapter_of(source, model)
    if adapter is not None:
        settings["adapter"] = describe_adapter(model, adapter)
        about["adapter"] = "the digest includes an adapter on this model"
    return weights_fingerprint(_weights(model, adapter), settings), about


def _adapter_of(source: Reference, model: Any) -> str | None:
    """Return the LoRA adapter that the reference uses; `None` for the base model alone."""
    if isinstance(source, FrozenLora | LoraOff):
        return source.name
    return active_adapter(model) if is_peft_model(model) else None


def versions_of(model: Any, compute_dtype: torch.dtype) -> dict[str, Any]:
    """Return what changes the results of a model, without PEFT around it, besides its weights."""
    import transformers

    kernel = str(model.config.get_text_config()._attn_implementation)
    return {
        "code": CODE,
        "compute": str(compute_dtype).removeprefix("torch."),
        "kernel": kernel.removeprefix(PREFIX),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _weights(model: Any, adapter: str | None) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a base model, by the names of the plain model, and of an adapter."""
    inside = {id(tensor) for _, _, tensor in adapter_tensors(model)}
    named: Mapping[str, Tensor] = model.state_dict(keep_vars=True)
    for name, tensor in named.items():
        if id(tensor) not in inside:
            plain = name.removeprefix("base_model.model.")
            yield plain.replace(".base_layer", "").replace(".original_module", ""), tensor
    if adapter is None:
        return
    for owner, key, tensor in adapter_tensors(model):
        if owner == adapter:
            yield f"adapter {key}", tensor
    for path, module in model.named_modules():
        scaling = getattr(module, "scaling", None)
        if isinstance(scaling, Mapping) and isinstance(scaling.get(adapter), int | float):
            yield f"scaling {path}", torch.tensor(float(scaling[adapter]), dtype=torch.float64)

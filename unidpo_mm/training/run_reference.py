"""Build the reference of a run: the policy before training, another model, or a LoRA adapter."""

from typing import Any

import torch
from torch import nn

from ..adapter import Adapter, AdapterFamily
from ..cache.reference_store import ReferenceStore
from ..config.python import UniDPOConfig
from ..distributed import first_process
from ..distributed.sharding import sharding_of
from ..errors import ModelError, Problem, RecipeError
from ..modeling.liger import apply_liger_kernels
from ..modeling.load import ModelSource, load_weights
from ..modeling.logp_model import LogpModel
from ..modeling.peft_models import can_copy_adapter, check_supported, is_peft_model
from ..modeling.references.cached import CachedReference, InitialPolicy, reference_fingerprint
from ..modeling.references.kinds import (
    FrozenCopy,
    FrozenLora,
    Reference,
    ReferenceKind,
    make_reference,
    resolve_kind,
    trains_adapter_only,
)
from ..modeling.references.moving import MovingLora
from ..plugins import suggestion
from .divided_weights import stored_copy

__all__ = ["build_run_reference"]


def build_run_reference(
    ref_model: str | nn.Module | None,
    logp_model: LogpModel,
    family: AdapterFamily,
    adapter: Adapter,
    args: UniDPOConfig,
    dtype: torch.dtype,
) -> Reference:
    """Build the reference of a run: the policy before training, or another model."""
    cached = args.reference == "cached"
    if args.reference_sync_steps is not None:
        return _moving_reference(ref_model, logp_model, adapter, args)
    if args.ref_adapter_name is not None:
        source: Reference = _named_adapter(
            args.ref_adapter_name, ref_model, logp_model, adapter, args
        )
    elif ref_model is not None:
        source = _other_model(ref_model, logp_model, family, adapter, args)
    elif cached and args.reference_build == "before" and not trains_adapter_only(logp_model):
        source = InitialPolicy(adapter)
    else:
        requested: ReferenceKind = "auto" if args.reference == "cached" else args.reference
        kind = first_process(lambda: resolve_kind(requested, logp_model))
        source = make_reference(kind, logp_model, adapter, stored=stored_copy(args, dtype))
    if not cached:
        return source
    fingerprint, about = first_process(  # other processes may not have all weights
        lambda: reference_fingerprint(source, logp_model, compute_dtype=dtype)
    )
    return CachedReference(source, ReferenceStore(fingerprint, about))


def _moving_reference(
    ref_model: str | nn.Module | None, logp_model: LogpModel, adapter: Adapter, args: UniDPOConfig
) -> MovingLora:
    """Build a reference that moves towards the policy."""
    others = {
        "a ref_model": ref_model is not None,
        "ref_adapter_name": args.ref_adapter_name is not None,
        f"reference '{args.reference}'": args.reference != "auto",
        "FSDP or DeepSpeed": sharding_of(args).kind != "none",
    }
    problem, remedy = "", "Remove one of the two"
    if other := next((name for name, is_set in others.items() if is_set), None):
        problem = f"it cannot be combined with {other}"
    elif not trains_adapter_only(logp_model) or not can_copy_adapter(logp_model.model):
        problem = "only a reference that is a copy of a LoRA adapter can move"
        remedy = "Remove it, or set model.lora and train nothing but the LoRA adapter"
    if problem:
        raise ModelError(Problem("train.reference_sync_steps", problem, remedy))
    assert args.reference_sync_steps is not None
    return MovingLora(
        logp_model, adapter, steps=args.reference_sync_steps, alpha=args.reference_sync_alpha
    )


def _named_adapter(
    name: str,
    ref_model: str | nn.Module | None,
    logp_model: LogpModel,
    adapter: Adapter,
    args: UniDPOConfig,
) -> FrozenLora:
    """Build a reference that uses another LoRA adapter of the policy, as in TRL."""
    model: Any = logp_model.model
    loaded = list(model.peft_config) if is_peft_model(model) else []
    problem, remedy = None, ""
    if ref_model is not None or args.reference not in ("auto", "cached"):
        other = "a ref_model" if ref_model is not None else f"reference='{args.reference}'"
        problem = f"it cannot be combined with {other}"
        remedy = "Remove one of the two"
    elif not loaded:
        problem = "the model is not a PEFT model"
        remedy = "Remove it: by default the reference is the model before training"
    elif name not in loaded:
        problem = f"the model has no adapter '{name}'{suggestion(name, loaded)}"
        remedy = f"Choose one of {', '.join(loaded)}"
    elif name in model.active_adapters:
        problem = f"'{name}' is the adapter that is being trained"
        remedy = "Remove it: the trainer keeps a frozen copy of the adapter"
    if problem is not None:
        raise ModelError(Problem("ref_adapter_name", problem, remedy))
    return FrozenLora(logp_model, adapter, name)


def _other_model(
    ref_model: str | nn.Module,
    logp_model: LogpModel,
    family: AdapterFamily,
    adapter: Adapter,
    args: UniDPOConfig,
) -> FrozenCopy:
    if args.reference not in ("auto", "frozen_copy", "cached"):
        problem = f"ref_model is set and reference is '{args.reference}'"
        raise RecipeError(Problem("reference", problem, "Remove one of the two"))
    if isinstance(ref_model, str):
        ref_model = load_weights(ModelSource.of(ref_model, args), family)
    shared = {id(p) for p in logp_model.parameters() if p.requires_grad}
    if ref_model is logp_model.model or any(id(p) in shared for p in ref_model.parameters()):
        problem = (
            "ref_model is the same object as the model that is being trained"
            if ref_model is logp_model.model
            else "ref_model shares trainable weights with the model, so it would change as well "
            "(get_peft_model and PeftModel.from_pretrained modify the base model in place)"
        )
        remedy = "Remove it: the trainer keeps a frozen copy of the trainable weights"
        raise ModelError(Problem("ref_model", problem, remedy))
    check_supported(ref_model, "ref_model")
    if args.use_liger_kernel:
        apply_liger_kernels(ref_model, args.liger_kernel_config)
    other = LogpModel(ref_model, chunk_size=args.logps_chunk_size)
    return FrozenCopy(other, adapter, separate_vision=True)

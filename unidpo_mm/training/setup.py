"""Prepare the parts of a run: data, model, family adapter, reference and loss."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..adapter import Adapter, AdapterFamily
from ..cache.feature_store import FeatureStore
from ..cache.keys import weights_fingerprint
from ..cache.reference_store import ReferenceStore
from ..config import LoraOptions
from ..config.python import UniDPOConfig
from ..data.load import log_reports
from ..data.row_table import columns_of
from ..distributed import first_process
from ..distributed.sharding import Sharding, sharding_of, weight_count
from ..errors import ModelError, Problem, RecipeError
from ..kernels.backends import disable_cudnn_attention
from ..kernels.packing import enable_packing
from ..kernels.tower_attention import use_one_call
from ..modeling.liger import apply_liger_kernels
from ..modeling.load import ModelSource, load_family_and_adapter, load_weights
from ..modeling.logp_model import LogpModel, unwrap_peft
from ..modeling.lora_inputs import convert_inputs_once
from ..modeling.lora_kinds import record_start, starts_from_weights
from ..modeling.lora_targets import warn_of_experts
from ..modeling.model_parts import with_model_parts
from ..modeling.parts import (
    add_lora,
    add_peft,
    compute_dtype,
    count_parameters,
    disable_dropout,
    freeze_parts,
    freeze_trained_parts,
    keep_in_float32,
)
from ..modeling.peft_models import (
    can_copy_adapter,
    check_adapter_trains,
    check_supported,
    freeze_inactive_adapters,
    is_peft_model,
)
from ..modeling.peft_saving import save_active_adapter_only
from ..modeling.references.cached import (
    CachedReference,
    InitialPolicy,
    gate_margin,
    reference_fingerprint,
    versions_of,
)
from ..modeling.references.kinds import (
    FrozenCopy,
    FrozenLora,
    Reference,
    ReferenceKind,
    StoredCopy,
    make_reference,
    resolve_kind,
    trains_adapter_only,
)
from ..modeling.references.moving import MovingLora
from ..modeling.vision import trains_vision, vision_weights
from ..plugins import suggestion
from ..records import PreferenceRow
from .configured_loss import configured_loss
from .prepare import prepare
from .run_parts import RunParts
from .startup_checks import score_warnings

__all__ = ["prepare_run"]

logger = logging.getLogger(__name__)

HALF_PRECISION = (torch.bfloat16, torch.float16)


def prepare_run(
    model: str | nn.Module,
    args: UniDPOConfig,
    *,
    train_dataset: Any,
    eval_dataset: Any = None,
    processing_class: Any = None,
    ref_model: str | nn.Module | None = None,
    peft_config: Any = None,
) -> RunParts:
    """Prepare the parts of a run; see `UniDPOTrainer` for the arguments.

    Raises:
        UniDPOError: If an option, a row or the model cannot be used.
    """
    disable_cudnn_attention()
    settings = configured_loss(args)
    _load_whole_weights(args)
    # weights are loaded last, so that errors in the data are reported before gigabytes are read
    load_adapter = functools.partial(load_family_and_adapter, model, args, processing_class)
    data = prepare(train_dataset, eval_dataset, args, settings, load_adapter, lora=peft_config)
    log_reports(data.reports)
    data.raise_problems()
    family, adapter = data.family, data.adapter
    assert family is not None
    assert adapter is not None
    train_rows, eval_rows = data.train_rows, data.eval_rows
    weights = load_weights(ModelSource.of(model, args), family) if isinstance(model, str) else model
    family = with_model_parts(family, weights)
    if torch.cuda.is_available():
        use_one_call(weights)
    policy = prepare_model(weights, family, args, peft_config)
    if data.stream is None:
        _check_trainable_weights_used(policy, train_rows)
    logp_model = LogpModel(policy, chunk_size=args.logps_chunk_size)
    dtype, sharding = compute_dtype(args, logp_model), sharding_of(args)
    reference = None
    if settings.loss.needs_reference(settings.config):
        reference = build_run_reference(ref_model, logp_model, family, adapter, args, dtype)
        _warn_of_whole_copy(reference, sharding)
    settings = settings.with_medians(train_rows or eval_rows)
    for warning in score_warnings(train_rows, settings):
        logger.warning(warning)
    if reference is not None:
        cached = isinstance(reference, CachedReference)
        settings = settings.with_gate_margin(gate_margin(dtype, cached=cached))
    return RunParts(
        logp_model=logp_model,
        reference=reference,
        family=family,
        adapter=adapter,
        settings=settings,
        features=_features(logp_model, args, dtype),
        unpackable=None if args.layout == "plain" else _why_unpackable(policy, reference),
        train_rows=train_rows,
        eval_rows=eval_rows,
        eval_sets={name: rows for name, rows in data.eval_sets.items() if name},
        preflight=data.preflight,
        lengths=data.lengths,
        stream=data.stream,
    )


def prepare_model(
    model: nn.Module, family: AdapterFamily, args: UniDPOConfig, peft_config: Any
) -> nn.Module:
    """Freeze parts, add a LoRA adapter, disable dropout and set number formats.

    Returns:
        The policy: `model`, or a PEFT model that wraps it.

    Raises:
        ModelError: If options contradict each other, or no weight is trainable.
    """
    check_supported(model, "model")
    if is_peft_model(model):
        _prepare_peft_model(model, family, args, peft_config)
    elif args.model_adapter_name is not None:
        problem = "the model is not a PEFT model"
        raise ModelError(Problem("model_adapter_name", problem, "Remove it"))
    elif peft_config is None:
        freeze_parts(model, family, args.freeze)
    else:
        model = _with_new_adapter(model, family, args, peft_config)
    if is_peft_model(model):
        check_adapter_trains(model)
        freeze_inactive_adapters(model)
        save_active_adapter_only(model)
        convert_inputs_once(model)
    if args.use_liger_kernel:
        apply_liger_kernels(model, args.liger_kernel_config)
    if args.disable_dropout:
        disable_dropout(model)
    if args.bf16 or args.fp16:
        if sharding_of(args).kind != "deepspeed":  # DeepSpeed keeps a float32 copy by itself
            keep_in_float32(model)
    elif any(p.requires_grad and p.dtype in HALF_PRECISION for p in model.parameters()):
        logger.warning(
            "trainable weights are in half precision, in which small updates are rounded to zero: "
            "set bf16=True (train.bf16) to keep them in float32 and compute in bfloat16"
        )
    return model


def _with_new_adapter(
    model: nn.Module, family: AdapterFamily, args: UniDPOConfig, peft_config: Any
) -> nn.Module:
    """Return a model with the new adapter that was configured."""
    policy: nn.Module
    if isinstance(peft_config, LoraOptions):
        policy = add_lora(model, family, peft_config, args.freeze)
    else:
        _check_peft_config(peft_config)
        policy = add_peft(model, family, peft_config, args.freeze)
    record_start(policy)
    warn_of_experts(policy, family)
    if sharding_of(args).kind != "none" and starts_from_weights(policy):
        problem = "a LoRA adapter that starts from the model's weights cannot be sharded"
        remedy = "Set model.lora.init to default, or remove fsdp and deepspeed"
        raise ModelError(Problem("model.lora.init", problem, remedy))
    return policy


def _prepare_peft_model(
    model: Any, family: AdapterFamily, args: UniDPOConfig, peft_config: Any
) -> None:
    """Check a PEFT model, activate the requested adapter and freeze parts of it."""
    if peft_config is not None:
        problem = "the model already has an adapter, and a new one is configured"
        remedy = (
            "Remove peft_config (model.lora) to train the existing adapter, or merge it into "
            "the base model first (unidpo-mm export --merge, or model.merge_and_unload())"
        )
        raise ModelError(Problem("peft_config", problem, remedy))
    name = args.model_adapter_name
    if name is not None:
        if name not in model.peft_config:
            problem = f"the model has no adapter '{name}'{suggestion(name, model.peft_config)}"
            remedy = f"Choose one of {', '.join(model.peft_config)}"
            raise ModelError(Problem("model_adapter_name", problem, remedy))
        if model.active_adapters != [name]:
            model.set_adapter(name)
    check_adapter_trains(model)
    if args.freeze is not None:
        freeze_trained_parts(model, family, args.freeze)
        return
    trained = [count.part for count in count_parameters(model, family) if count.trainable]
    unusual = [part for part in trained if part in family.default_freeze]
    if unusual:
        logger.warning(
            "the model's LoRA adapter also trains %s, which the family '%s' freezes by default: "
            "set freeze to keep it frozen",
            ", ".join(unusual),
            family.name,
        )


def _check_peft_config(peft_config: Any) -> None:
    if getattr(peft_config, "is_prompt_learning", False):
        problem = f"{type(peft_config).__name__} puts virtual tokens before the prompt"
        raise ModelError(Problem("peft_config", problem, "Pass a peft.LoraConfig"))
    if not hasattr(peft_config, "peft_type"):
        problem = f"{type(peft_config).__name__} is not a PEFT configuration"
        raise ModelError(Problem("peft_config", problem, "Pass a peft.LoraConfig"))


def _check_trainable_weights_used(policy: nn.Module, rows: Sequence[PreferenceRow]) -> None:
    """Raise ModelError if no row has media and all trainable weights process images."""
    model = unwrap_peft(policy)
    columns = columns_of(rows)
    media = columns.images.any() or columns.videos.any()
    if not rows or media or not hasattr(model, "get_decoder"):
        return
    vision = {id(tensor) for _, tensor in vision_weights(model)}
    if all(id(p) in vision for p in policy.parameters() if p.requires_grad):
        problem = "only weights that process images are trainable, and no row has an image"
        remedy = "Train the language model as well, or add rows with images"
        raise ModelError(Problem("model.freeze", problem, remedy))


def _features(logp_model: LogpModel, args: UniDPOConfig, dtype: torch.dtype) -> FeatureStore | None:
    """Return the cache of image features; `None` if it is off or training changes features."""
    model = unwrap_peft(logp_model.model)
    if args.feature_cache_gb <= 0 or not logp_model.takes_features:
        return None
    if trains_vision(model):
        logger.warning("image features are not cached: the vision tower or projector is trained")
        return None
    settings = versions_of(model, dtype)
    fingerprint = first_process(lambda: weights_fingerprint(vision_weights(model), settings))
    return FeatureStore(fingerprint, limit_bytes=int(args.feature_cache_gb * 1e9))


def _why_unpackable(policy: nn.Module, reference: Reference | None) -> str | None:
    """Enable packed rows in the policy and the reference.

    Returns:
        The reason if it is impossible; else `None`.
    """
    reason = enable_packing(unwrap_peft(policy))
    if isinstance(reference, CachedReference):
        reference = reference.source
    if isinstance(reference, FrozenCopy):
        reference_reason = enable_packing(unwrap_peft(reference.logp_model.model))
        reason = reason or (reference_reason and f"the reference: {reference_reason}")
    return reason


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
        source = make_reference(kind, logp_model, adapter, stored=_stored_copy(args, dtype))
    if not cached:
        return source
    fingerprint, about = first_process(  # other processes may not have all weights
        lambda: reference_fingerprint(source, logp_model, compute_dtype=dtype)
    )
    return CachedReference(source, ReferenceStore(fingerprint, about))


def _load_whole_weights(args: UniDPOConfig) -> None:
    """Let every process load all weights, which DeepSpeed divides later.

    transformers would divide them while it loads them, and digests, the reference and new LoRA
    adapters would be made from empty tensors. The trainer sets the configuration again.
    """
    if sharding_of(args).stage == 3:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def _stored_copy(args: UniDPOConfig, dtype: torch.dtype) -> StoredCopy:
    """Return how the weights of a frozen copy are stored; see `StoredCopy`."""
    sharding = sharding_of(args)
    mixed = args.bf16 or args.fp16
    return StoredCopy(
        products=dtype if mixed else None,
        everything=dtype if mixed and sharding.kind == "deepspeed" else None,
        shares=sharding.stage < 3,
    )


def _warn_of_whole_copy(reference: Reference, sharding: Sharding) -> None:
    """Warn if every process keeps a whole second model while the policy is divided."""
    source = reference.source if isinstance(reference, CachedReference) else reference
    if not sharding.weights or not isinstance(source, FrozenCopy):
        return
    size = sum(weight_count(p) * p.element_size() for p in source.logp_model.parameters())
    logger.warning(
        "%s divides the policy, but every GPU keeps a whole frozen copy of it as the reference "
        "(%.3g GB): set train.reference to cached, or train a LoRA adapter",
        sharding.name,
        size / 1e9,
    )


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

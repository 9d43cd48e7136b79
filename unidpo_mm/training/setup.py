"""Prepare the parts of a run: data, model, family adapter, reference and loss."""

import functools
import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..adapter import AdapterFamily
from ..cache.feature_store import FeatureStore
from ..cache.keys import weights_fingerprint
from ..config import LoraOptions
from ..config.python import UniDPOConfig
from ..data.load import log_reports
from ..data.row_table import columns_of
from ..distributed import first_process
from ..distributed.sharding import sharding_of
from ..errors import ModelError, Problem
from ..kernels.backends import disable_cudnn_attention
from ..kernels.packing import enable_packing
from ..kernels.tower_attention import use_one_call
from ..modeling.liger import apply_liger_kernels
from ..modeling.load import ModelSource, load_family_and_adapter, load_weights
from ..modeling.logp_model import LogpModel, unwrap_peft
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
    check_adapter_trains,
    check_supported,
    freeze_inactive_adapters,
    is_peft_model,
)
from ..modeling.peft_saving import save_active_adapter_only
from ..modeling.references.cached import (
    CachedReference,
    gate_margin,
    versions_of,
)
from ..modeling.references.kinds import (
    FrozenCopy,
    Reference,
)
from ..modeling.tensor_files import warn_of_tensors_not_loaded
from ..modeling.vision import trains_vision, vision_weights
from ..plugins import suggestion
from ..records import PreferenceRow
from .configured_loss import configured_loss
from .divided_weights import load_whole_weights, warn_of_whole_copy
from .prepare import prepare
from .run_parts import RunParts
from .run_reference import build_run_reference
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
    load_whole_weights(args)
    # weights are loaded last, so that errors in the data are reported before gigabytes are read
    load_adapter = functools.partial(load_family_and_adapter, model, args, processing_class)
    data = prepare(train_dataset, eval_dataset, args, settings, load_adapter, lora=peft_config)
    log_reports(data.reports)
    data.raise_problems()
    family, adapter = data.family, data.adapter
    assert family is not None
    assert adapter is not None
    train_rows, eval_rows = data.train_rows, data.eval_rows
    source = ModelSource.of(model, args)
    weights = load_weights(source, family) if isinstance(model, str) else model
    family = with_model_parts(family, weights)
    if torch.cuda.is_available():
        use_one_call(weights)
    policy = prepare_model(weights, family, args, peft_config)
    if isinstance(model, str) and not is_peft_model(policy):
        warn_of_tensors_not_loaded(policy, source)
    if data.stream is None:
        _check_trainable_weights_used(policy, train_rows)
    logp_model = LogpModel(policy, chunk_size=args.logps_chunk_size)
    dtype, sharding = compute_dtype(args, logp_model), sharding_of(args)
    reference = None
    if settings.loss.needs_reference(settings.config):
        reference = build_run_reference(ref_model, logp_model, family, adapter, args, dtype)
        warn_of_whole_copy(reference, sharding)
    settings = settings.with_medians(train_rows or eval_rows)
    for warning in score_warnings(train_rows, settings):
        logger.warning(warning)
    if reference is not None:
        whole_copy = sharding.weights and isinstance(reference, FrozenCopy)
        apart = whole_copy or isinstance(reference, CachedReference)
        settings = settings.with_gate_margin(gate_margin(dtype, apart=apart))
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
        from ..modeling.lora_layers import use_fast_lora

        use_fast_lora(model)
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

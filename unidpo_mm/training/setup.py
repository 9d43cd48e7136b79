"""Puts the pieces of a run together: model, adapter, reference, loss and data."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn

from ..adapter import Adapter, AdapterFamily, AdapterOptions
from ..cache.feature_store import FeatureStore
from ..cache.keys import weights_fingerprint
from ..data.groups import group_by_prompt, weigh_by_group
from ..data.load import SourceFile, log_reports, read_records
from ..data.preflight import Preflight, preflight
from ..data.scores import without_weight
from ..data.split import split_rows
from ..errors import DataError, ModelError, Problem
from ..modeling.cached_reference import CachedReference, gate_margin, versions_of
from ..modeling.load import family_for, load_adapter, load_config, load_weights
from ..modeling.packing import enable_packing
from ..modeling.parts import (
    LoraSettings,
    add_lora,
    disable_dropout,
    freeze_parts,
    keep_in_float32,
)
from ..modeling.reference import FrozenCopy, Reference
from ..modeling.scoring import ScoringModel, unwrap_peft
from ..modeling.vision import trains_vision, vision_weights
from ..records import PreferenceRow
from .config import UniDPOConfig
from .data_options import score_policy
from .loss_settings import LossSettings
from .memory_policy import parse_memory
from .references import build_run_reference, compute_dtype, loading_source
from .score_warnings import score_warnings

__all__ = ["RunParts", "prepare_data", "prepare_model", "prepare_run"]

logger = logging.getLogger(__name__)

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """Everything that the trainer needs, ready-made.

    Attributes:
        scorer: The policy inside its scoring module.
        reference: The reference, or None where the loss uses none.
        family, adapter: The model's family and its adapter.
        settings: The loss, every parameter a number.
        features: Keeps features of pictures between batches; None where that is off or something
            between pixels and language model trains.
        unpackable: Why rows cannot be packed for this model; None where they can.
        train_rows, eval_rows: The data.
        preflight: What a pass over the data found; None if it was switched off.
    """

    scorer: ScoringModel
    reference: Reference | None
    family: AdapterFamily
    adapter: Adapter
    settings: LossSettings
    features: FeatureStore | None
    unpackable: str | None
    train_rows: Sequence[PreferenceRow]
    eval_rows: Sequence[PreferenceRow]
    preflight: Preflight | None


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
    """Returns the parts of a run; see `UniDPOTrainer` for the arguments.

    Raises:
        UniDPOError: If a setting, a row or the model cannot be used, before anything trains.
    """
    settings = args.loss_settings()
    parse_memory(args.memory)
    family, adapter = load_family_and_adapter(model, args, processing_class)
    # weights come last: a mistake in the data shows before gigabytes are read
    train_rows, eval_rows, found = prepare_data(
        train_dataset, eval_dataset, args, settings, adapter
    )
    weights = load_weights(loading_source(model, args), family) if isinstance(model, str) else model
    policy = prepare_model(weights, family, args, peft_config)
    scorer = ScoringModel(policy, chunk_size=args.logps_chunk_size)
    reference = build_run_reference(ref_model, scorer, family, adapter, args, settings)
    settings = settings.with_medians(train_rows or eval_rows)
    for warning in score_warnings(train_rows, settings):
        logger.warning(warning)
    if reference is not None:
        cached = isinstance(reference, CachedReference)
        margin = gate_margin(compute_dtype(args, scorer), cached=cached)
        settings = settings.with_gate_margin(margin)
    return RunParts(
        scorer=scorer,
        reference=reference,
        family=family,
        adapter=adapter,
        settings=settings,
        features=_features(scorer, args),
        unpackable=None if args.layout == "plain" else _why_unpackable(policy, reference),
        train_rows=train_rows,
        eval_rows=eval_rows,
        preflight=found,
    )


def load_family_and_adapter(
    model: str | nn.Module, args: UniDPOConfig, processing_class: Any = None
) -> tuple[AdapterFamily, Adapter]:
    """Returns the family that serves a model, by name or as an object, and its adapter."""
    source = loading_source(model, args)
    config: Any = load_config(source) if isinstance(model, str) else model.config
    family = family_for(config, args.adapter)
    options = AdapterOptions(
        max_length=args.max_length,
        length_policy=args.length_policy,
        prompt_style=args.prompt_style,
        chat_template_kwargs=args.chat_template_kwargs or {},
        image_min_pixels=args.image_min_pixels,
        image_max_pixels=args.image_max_pixels,
    )
    adapter = load_adapter(
        source, options, config=config, family=family, processor=processing_class
    )
    return family, adapter


def prepare_model(
    model: nn.Module, family: AdapterFamily, args: UniDPOConfig, peft_config: Any
) -> nn.Module:
    """Freezes, adds a LoRA, switches dropout off and sets number formats; returns the policy."""
    if hasattr(model, "peft_config"):
        if peft_config is not None:
            found = "the model already is a PEFT model and peft_config is given"
            raise ModelError(Problem("peft_config", found, "Give one of the two"))
    elif peft_config is None:
        freeze_parts(model, family, args.freeze)
    elif isinstance(peft_config, LoraSettings):
        model = add_lora(model, family, peft_config)
    else:
        model = _with_peft(model, peft_config)
    if args.disable_dropout:
        disable_dropout(model)
    if args.bf16 or args.fp16:
        keep_in_float32(model)
    elif any(p.requires_grad and p.dtype in HALF for p in model.parameters()):
        logger.warning(
            "weights that train are half precision, in which small updates round away: "
            "bf16=True (train.bf16) keeps them in float32 and computes in bfloat16"
        )
    return model


def prepare_data(
    train_dataset: Any,
    eval_dataset: Any,
    args: UniDPOConfig,
    settings: LossSettings,
    adapter: Adapter,
) -> tuple[list[PreferenceRow], list[PreferenceRow], Preflight | None]:
    """Returns training rows, held-out rows, and what a pass over them found.

    Raises:
        DataError: With every problem of every row.
    """
    train_rows, problems = _read(train_dataset, "data", args, settings)
    eval_rows, wrong = _read(eval_dataset, "evaluation data", args, settings)
    problems += [*wrong, *settings.check_sources([*train_rows, *eval_rows])]
    problems += [*settings.check_rows(train_rows), *without_weight(train_rows)]
    if settings.loss.unit == "pair":
        problems += settings.check_rows(eval_rows)
    found = None
    try:
        found = _look(train_rows, eval_rows, args, adapter)
    except DataError as error:
        problems += error.problems
    if problems:
        raise DataError(problems)
    if found is not None:
        eval_rows = found.kept(eval_rows, first=len(train_rows))
        train_rows = found.kept(train_rows)
        if found.left_out and not train_rows:
            nothing = f"all {len(found.left_out):,} rows are left out"
            raise DataError(Problem("data", nothing, "Raise max_length, or repair the pictures"))
    if args.eval_fraction > 0 and not eval_rows:
        seed = args.seed if args.data_seed is None else args.data_seed
        train_rows, eval_rows = split_rows(train_rows, args.eval_fraction, seed=seed)
    if settings.loss.unit == "response":
        train_rows = [row.for_responses() for row in train_rows if row.targets()]
    elif args.group_by_prompt:
        train_rows = group_by_prompt(train_rows, most_pairs=args.per_device_train_batch_size)
        eval_rows = group_by_prompt(eval_rows, most_pairs=args.per_device_eval_batch_size)
    if args.pair_weighting == "group":
        train_rows = weigh_by_group(train_rows)
    return train_rows, eval_rows, found


def _look(
    train_rows: list[PreferenceRow],
    eval_rows: list[PreferenceRow],
    args: UniDPOConfig,
    adapter: Adapter,
) -> Preflight | None:
    """Returns what a pass over all rows found, which may leave some of them out."""
    if args.preflight:
        return preflight(
            [*train_rows, *eval_rows],
            adapter,
            workers=args.dataloader_num_workers,
            drop_long=args.length_policy == "drop",
            max_skipped_fraction=args.max_skipped_fraction,
        )
    if args.length_policy == "drop" or args.max_skipped_fraction > 0:
        found = "rows are to be left out, and nothing looks for them before training"
        raise DataError(Problem("data.preflight", found, "Set it to true"))
    return None


def _read(
    dataset: Any, source: str, args: UniDPOConfig, settings: LossSettings
) -> tuple[list[PreferenceRow], list[Problem]]:
    """Returns the rows of a data set in memory; rows of a recipe's sources come ready-made."""
    scale = args.score_scale
    declared = SourceFile(
        path=source,
        scores=score_policy(args),
        needs_scores=settings.needs_scores(source),
        reasoning=args.reasoning,
    )
    loaded = read_records(
        () if dataset is None else dataset,
        declared,
        score_scale=None if scale is None else (scale[0], scale[1]),
    )
    log_reports(loaded.reports)
    return loaded.rows, loaded.problems


def _features(scorer: ScoringModel, args: UniDPOConfig) -> FeatureStore | None:
    """Returns the store of features; a tower that trains gives others at every step."""
    model = unwrap_peft(scorer.model)
    if args.feature_cache_gb <= 0 or not scorer.takes_features:
        return None
    if trains_vision(model):
        logger.warning("features of pictures are not cached: tower or projector train")
        return None
    settings = versions_of(model, compute_dtype(args, scorer))
    found: list[Any] = [None]
    if args.process_index == 0:
        found = [weights_fingerprint(vision_weights(model), settings)]
    limit = int(args.feature_cache_gb * 1e9)
    return FeatureStore(broadcast_object_list(found)[0], limit_bytes=limit)


def _why_unpackable(policy: nn.Module, reference: Reference | None) -> str | None:
    """Lets policy and reference take packed rows; says why one of them cannot."""
    reason = enable_packing(unwrap_peft(policy))
    if isinstance(reference, CachedReference):
        reference = reference.source
    if isinstance(reference, FrozenCopy):
        of_reference = enable_packing(unwrap_peft(reference.scorer.model))
        reason = reason or (of_reference and f"the reference: {of_reference}")
    return reason


def _with_peft(model: nn.Module, peft_config: Any) -> nn.Module:
    from peft import get_peft_model

    if getattr(peft_config, "is_prompt_learning", False):
        found = f"{type(peft_config).__name__} puts virtual tokens before the prompt"
        raise ModelError(Problem("peft_config", found, "Use a LoRA"))
    policy: nn.Module = get_peft_model(model, peft_config)
    return policy

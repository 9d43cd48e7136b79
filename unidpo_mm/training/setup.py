"""Puts the pieces of a run together: model, adapter, reference, loss and data."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..adapter import Adapter, AdapterFamily, AdapterOptions
from ..data.load import rows_from_records
from ..data.preflight import Preflight, preflight
from ..data.split import split_rows
from ..errors import DataError, ModelError, Problem, RecipeError
from ..modeling.load import LoadedModel, ModelSource, family_for, load_adapter, load_model
from ..modeling.parts import (
    LoraSettings,
    add_lora,
    disable_dropout,
    freeze_parts,
    keep_in_float32,
)
from ..modeling.reference import FrozenCopy, Reference, build_reference
from ..modeling.scoring import ScoringModel
from ..records import PreferenceRow
from .config import UniDPOConfig
from .loss_settings import LossSettings

__all__ = ["RunParts", "prepare_data", "prepare_model", "prepare_run"]


@dataclass(frozen=True, kw_only=True)
class RunParts:
    """Everything that the trainer needs, ready-made.

    Attributes:
        scorer: The policy inside its scoring module.
        reference: The reference, or None where the loss uses none.
        family, adapter: The model's family and its adapter.
        settings: The loss, every parameter a number.
        train_rows, eval_rows: The data.
        preflight: What a pass over the data found; None if it was switched off.
    """

    scorer: ScoringModel
    reference: Reference | None
    family: AdapterFamily
    adapter: Adapter
    settings: LossSettings
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
    loaded = load(model, args, processing_class)
    train_rows, eval_rows, found = prepare_data(
        train_dataset, eval_dataset, args, settings, loaded.adapter
    )
    policy = prepare_model(loaded, args, peft_config)
    scorer = ScoringModel(policy, chunk_size=args.logps_chunk_size)
    return RunParts(
        scorer=scorer,
        reference=_reference(ref_model, scorer, loaded, args, settings),
        family=loaded.family,
        adapter=loaded.adapter,
        settings=settings.with_medians(train_rows or eval_rows),
        train_rows=train_rows,
        eval_rows=eval_rows,
        preflight=found,
    )


def load(model: str | nn.Module, args: UniDPOConfig, processing_class: Any) -> LoadedModel:
    """Returns a model, by name or as an object, with its family and adapter."""
    options = AdapterOptions(max_length=args.max_length, prompt_style=args.prompt_style)
    if isinstance(model, str):
        return load_model(model_source(model, args), options, processor=processing_class)
    config: Any = model.config
    family = family_for(config, args.adapter)
    adapter = load_adapter(
        model_source(str(config._name_or_path), args),
        options,
        config=config,
        family=family,
        processor=processing_class,
    )
    return LoadedModel(model, family, adapter)


def model_source(name: str, args: UniDPOConfig) -> ModelSource:
    """Returns where a model comes from, from the arguments of `from_pretrained`."""
    given = dict(args.model_init_kwargs or {})
    return ModelSource(
        name_or_path=name,
        dtype=str(given.pop("dtype", "auto")).removeprefix("torch."),
        adapter=args.adapter,
        attn_implementation=given.pop("attn_implementation", None),
        trust_remote_code=given.pop("trust_remote_code", False),
        init_kwargs=given,
    )


def prepare_model(loaded: LoadedModel, args: UniDPOConfig, peft_config: Any) -> nn.Module:
    """Freezes, adds a LoRA, switches dropout off and sets number formats; returns the policy."""
    model = loaded.model
    if hasattr(model, "peft_config"):
        if peft_config is not None:
            found = "the model already is a PEFT model and peft_config is given"
            raise ModelError(Problem("peft_config", found, "Give one of the two"))
    elif peft_config is None:
        freeze_parts(model, loaded.family, args.freeze)
    elif isinstance(peft_config, LoraSettings):
        model = add_lora(model, loaded.family, peft_config)
    else:
        model = _with_peft(model, peft_config)
    if args.disable_dropout:
        disable_dropout(model)
    if args.bf16 or args.fp16:
        keep_in_float32(model)
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
    train_rows = rows_from_records(() if train_dataset is None else train_dataset)
    eval_rows = rows_from_records(
        () if eval_dataset is None else eval_dataset, source="evaluation data"
    )
    problems = settings.check_rows(train_rows)
    if settings.loss.unit == "pair":
        problems += settings.check_rows(eval_rows)
    if problems:
        raise DataError(problems)
    if args.eval_fraction > 0 and not eval_rows:
        seed = args.seed if args.data_seed is None else args.data_seed
        train_rows, eval_rows = split_rows(train_rows, args.eval_fraction, seed=seed)
    found = None
    if args.preflight:
        rows = [*train_rows, *eval_rows]
        found = preflight(rows, adapter, workers=args.dataloader_num_workers)
    if settings.loss.unit == "response":
        train_rows = [row.for_responses() for row in train_rows if row.targets()]
    return train_rows, eval_rows, found


def _reference(
    ref_model: str | nn.Module | None,
    scorer: ScoringModel,
    loaded: LoadedModel,
    args: UniDPOConfig,
    settings: LossSettings,
) -> Reference | None:
    needed = settings.loss.needs_reference(settings.config)
    if ref_model is None or not needed:
        return build_reference(args.reference, scorer, loaded.adapter, needed=needed)
    if args.reference not in ("auto", "frozen_copy"):
        found = f"a ref_model is given and reference is '{args.reference}'"
        raise RecipeError(Problem("reference", found, "Leave one of the two out"))
    if isinstance(ref_model, str):
        ref_model = load(ref_model, args, loaded.adapter.processor).model
    if ref_model is scorer.model:
        found = "ref_model is the very model that trains"
        raise ModelError(Problem("ref_model", found, "Leave it out: a copy is made for you"))
    return FrozenCopy(ScoringModel(ref_model, chunk_size=args.logps_chunk_size), loaded.adapter)


def _with_peft(model: nn.Module, peft_config: Any) -> nn.Module:
    from peft import get_peft_model

    if getattr(peft_config, "is_prompt_learning", False):
        found = f"{type(peft_config).__name__} puts virtual tokens before the prompt"
        raise ModelError(Problem("peft_config", found, "Use a LoRA"))
    policy: nn.Module = get_peft_model(model, peft_config)
    return policy

"""The reference of a run, and the pass that computes the log-probs of a cached one."""

from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..adapter import Adapter, AdapterFamily
from ..cache.reference_store import ReferenceStore
from ..config.python import UniDPOConfig
from ..data.workers import batch_of
from ..errors import ModelError, Problem, RecipeError, counted
from ..modeling.load import ModelSource, load_weights
from ..modeling.logp_model import LogpModel
from ..modeling.peft_models import check_supported, is_peft_model
from ..modeling.references.cached import CachedReference, InitialPolicy, reference_fingerprint
from ..modeling.references.kinds import (
    FrozenCopy,
    FrozenLora,
    Reference,
    ReferenceKind,
    ResolvedKind,
    make_reference,
    reference_digest,
    resolve_kind,
    trains_adapter_only,
)
from ..plugins import suggestion
from .configured_loss import ConfiguredLoss
from .context import TrainingContext
from .optimizer import check_optimizer

__all__ = ["PrepareReference", "build_run_reference", "compute_dtype"]


def build_run_reference(
    ref_model: str | nn.Module | None,
    logp_model: LogpModel,
    family: AdapterFamily,
    adapter: Adapter,
    args: UniDPOConfig,
    settings: ConfiguredLoss,
) -> Reference | None:
    """Return the reference of a run: the policy before training, or another model.

    Returns:
        The reference; `None` if the loss uses none.
    """
    if not settings.loss.needs_reference(settings.config):
        return None
    cached = args.reference == "cached"
    if args.ref_adapter_name is not None:
        source: Reference = _named_adapter(
            args.ref_adapter_name, ref_model, logp_model, adapter, args
        )
    elif ref_model is not None:
        source = _other_model(ref_model, logp_model, family, adapter, args)
    elif cached and args.reference_build == "before" and not trains_adapter_only(logp_model):
        source = InitialPolicy(adapter)
    else:
        kind: ReferenceKind = "auto" if args.reference == "cached" else args.reference
        source = make_reference(_agreed_kind(kind, logp_model, args), logp_model, adapter)
    if not cached:
        return source
    described: list[Any] = [None]
    if args.process_index == 0:  # the only one that is certain to have all weights
        dtype = compute_dtype(args, logp_model)
        described = [reference_fingerprint(source, logp_model, compute_dtype=dtype)]
    fingerprint, about = broadcast_object_list(described)[0]
    return CachedReference(source, ReferenceStore(fingerprint, about))


def _agreed_kind(kind: ReferenceKind, logp_model: LogpModel, args: UniDPOConfig) -> ResolvedKind:
    """Return the kind of reference that the first process chooses, since it has all weights."""
    outcome: list[Any] = [None]
    if args.process_index == 0:
        try:
            outcome = [resolve_kind(kind, logp_model)]
        except ModelError as error:
            outcome = [error]
    agreed = broadcast_object_list(outcome)[0]
    if isinstance(agreed, ModelError):
        raise agreed
    resolved: ResolvedKind = agreed
    return resolved


def _named_adapter(
    name: str,
    ref_model: str | nn.Module | None,
    logp_model: LogpModel,
    adapter: Adapter,
    args: UniDPOConfig,
) -> FrozenLora:
    """Return a reference that consists of another LoRA adapter of the policy, as in TRL."""
    model: Any = logp_model.model
    loaded = list(model.peft_config) if is_peft_model(model) else []
    problem, remedy = None, ""
    if ref_model is not None or args.reference not in ("auto", "cached"):
        other = "a ref_model" if ref_model is not None else f"reference='{args.reference}'"
        problem = f"it is set together with {other}"
        remedy = "Remove one of the two"
    elif not loaded:
        problem = "the model is not a PEFT model"
        remedy = "Remove it: by default the reference is the model before training"
    elif name not in loaded:
        problem = f"the model has no adapter '{name}'{suggestion(name, loaded)}"
        remedy = f"Choose one of {', '.join(loaded)}"
    elif name in model.active_adapters:
        problem = f"'{name}' is the adapter that trains"
        remedy = "Remove it: the trainer keeps a frozen copy of the adapter"
    if problem is not None:
        raise ModelError(Problem("ref_adapter_name", problem, remedy))
    return FrozenLora(logp_model, adapter, name)


def compute_dtype(args: UniDPOConfig, logp_model: LogpModel) -> torch.dtype:
    """Return the number format of matrix products."""
    if args.bf16 or args.fp16:
        return torch.bfloat16 if args.bf16 else torch.float16
    return next(logp_model.parameters()).dtype


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
            "ref_model is the same object as the model that trains"
            if ref_model is logp_model.model
            else "ref_model shares weights that train with the model, so it would change as well "
            "(get_peft_model and PeftModel.from_pretrained modify the base model in place)"
        )
        remedy = "Remove it: the trainer keeps a frozen copy of what trains"
        raise ModelError(Problem("ref_model", problem, remedy))
    check_supported(ref_model, "ref_model")
    other = LogpModel(ref_model, chunk_size=args.logps_chunk_size)
    return FrozenCopy(other, adapter, separate_vision=True)


STATE_KEY = "UniDPOReference"
"""Key of the reference's digest in the trainer's state."""


class PrepareReference(TrainerCallback):
    """A callback that prepares and checks the reference when training begins.

    It fills the cache of a cached reference. It also keeps the digest of the reference in the
    trainer's state, and so in every checkpoint: a resumed run must have the reference that it
    started with.
    """

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer
        self.digest: str | None = None

    def on_init_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compute the digest on the first process, while it has all weights: FSDP shards later."""
        if args.process_index == 0:
            self.digest = reference_digest(self.trainer.parts.reference)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the reference and the optimizer, and fill the cache.

        Raises:
            ModelError: If a resumed run has another reference, or the optimizer trains nothing.
        """
        self._check_digest(state)
        if not (self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled):
            check_optimizer(kwargs.get("optimizer"), self.trainer.model)
        self._mark_trained(state.global_step > 0)
        reference = self.trainer.parts.reference
        if isinstance(reference, CachedReference) and args.reference_build == "before":
            fill_cache(self.trainer, reference)

    def _check_digest(self, state: TrainerState) -> None:
        digest = str(broadcast_object_list([self.digest])[0])
        callbacks: Any = state.stateful_callbacks
        before = callbacks.get(STATE_KEY, {}).get("digest")
        callbacks[STATE_KEY] = {"digest": digest}
        if state.global_step > 0 and before not in (None, digest):
            problem = (
                "the reference differs from the one that this run started with: the model that "
                "was passed is not the model before training"
            )
            remedy = (
                "Pass the model and its adapter as at the start of the run; the trainer loads the "
                "checkpoint itself"
            )
            raise ModelError(Problem("resume_from_checkpoint", problem, remedy))

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note that the policy is no longer the model before training."""
        self._mark_trained(True)

    def _mark_trained(self, trained: bool) -> None:
        source = getattr(self.trainer.parts.reference, "source", None)
        if isinstance(source, InitialPolicy):
            source.trained = trained


def fill_cache(trainer: TrainingContext, reference: CachedReference) -> None:
    """Compute the log-probs that a cached reference lacks, and show the progress."""
    loaders = [trainer.get_train_dataloader()]
    sets = trainer.eval_dataset
    for dataset in sets.values() if isinstance(sets, dict) else [sets]:
        if dataset is not None:
            loaders.append(trainer.get_eval_dataloader(dataset))
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("references"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=trainer.args.disable_tqdm or not trainer.is_world_process_zero(),
    )
    before = reference.computed
    with bar, torch.no_grad(), trainer.accelerator.autocast():
        task = bar.add_task("references", total=sum(map(len, loaders)))
        for loader in loaders:
            for item in loader:
                batch = batch_of(item).to(trainer.args.device)
                reference.token_logps(trainer.model_wrapped, batch)
                bar.advance(task)
    if trainer.is_world_process_zero():
        computed = reference.computed - before
        console.print(
            f"Reference: log-probs of {counted(computed, 'response')} computed, the others read "
            f"from the cache in {reference.store.path}",
            soft_wrap=True,
        )

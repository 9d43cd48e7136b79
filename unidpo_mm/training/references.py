"""Which reference a run has, and the pass that fills a cached one before training."""

from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..adapter import Adapter, AdapterFamily
from ..cache.reference_store import ReferenceStore
from ..data.workers import batch_of
from ..errors import ModelError, Problem, RecipeError
from ..modeling.cached_reference import CachedReference, FirstState, reference_fingerprint
from ..modeling.load import ModelSource, load_weights
from ..modeling.reference import (
    FrozenCopy,
    Reference,
    ReferenceKind,
    build_reference,
    can_switch_off,
)
from ..modeling.scoring import ScoringModel
from .config import UniDPOConfig
from .loss_settings import LossSettings

if TYPE_CHECKING:
    from .trainer import UniDPOTrainer

__all__ = ["FillCache", "build_run_reference", "compute_dtype", "loading_source"]


def loading_source(model: str | nn.Module, args: UniDPOConfig) -> ModelSource:
    """Returns where a model, or the processor of a loaded one, comes from."""
    name = model if isinstance(model, str) else str(getattr(model.config, "_name_or_path", ""))
    given = dict(args.model_init_kwargs or {})
    return ModelSource(
        name_or_path=name,
        dtype=str(given.pop("dtype", "auto")).removeprefix("torch."),
        adapter=args.adapter,
        attn_implementation=given.pop("attn_implementation", None),
        trust_remote_code=given.pop("trust_remote_code", False),
        init_kwargs=given,
    )


def build_run_reference(
    ref_model: str | nn.Module | None,
    scorer: ScoringModel,
    family: AdapterFamily,
    adapter: Adapter,
    args: UniDPOConfig,
    settings: LossSettings,
) -> Reference | None:
    """Returns the reference of a run: the policy's first state, or a model of its own; or None."""
    if not settings.loss.needs_reference(settings.config):
        return None
    cached = args.reference == "cached"
    kind: ReferenceKind = "auto" if args.reference == "cached" else args.reference
    if ref_model is not None:
        source: Reference = _other_model(ref_model, scorer, family, adapter, args)
    elif cached and args.reference_build == "before" and not can_switch_off(scorer):
        source = FirstState(adapter)
    else:
        source = build_reference(kind, scorer, adapter)
    if not cached:
        return source
    found: list[Any] = [None]
    if args.process_index == 0:  # the weights may be whole on this process only
        found = [reference_fingerprint(source, scorer, compute_dtype=compute_dtype(args, scorer))]
    fingerprint, about = broadcast_object_list(found)[0]
    return CachedReference(source, ReferenceStore(fingerprint, about))


def compute_dtype(args: UniDPOConfig, scorer: ScoringModel) -> torch.dtype:
    """Returns the format that matrix products run in."""
    if args.bf16 or args.fp16:
        return torch.bfloat16 if args.bf16 else torch.float16
    return next(scorer.parameters()).dtype


def _other_model(
    ref_model: str | nn.Module,
    scorer: ScoringModel,
    family: AdapterFamily,
    adapter: Adapter,
    args: UniDPOConfig,
) -> FrozenCopy:
    if args.reference not in ("auto", "frozen_copy", "cached"):
        found = f"a ref_model is given and reference is '{args.reference}'"
        raise RecipeError(Problem("reference", found, "Leave one of the two out"))
    if isinstance(ref_model, str):
        ref_model = load_weights(loading_source(ref_model, args), family)
    if ref_model is scorer.model:
        found = "ref_model is the very model that trains"
        raise ModelError(Problem("ref_model", found, "Leave it out: a copy is made for you"))
    other = ScoringModel(ref_model, chunk_size=args.logps_chunk_size)
    return FrozenCopy(other, adapter, own_vision=True)


class FillCache(TrainerCallback):
    """Lets a cached reference see every answer before the first step, and tells it of that step.

    Other references need none of it.
    """

    def __init__(self, trainer: "UniDPOTrainer") -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fills the cache; on a run that goes on everything is there already."""
        self._tell(moved=state.global_step > 0)
        reference = self.trainer.parts.reference
        if isinstance(reference, CachedReference) and args.reference_build == "before":
            fill_cache(self.trainer, reference)

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """From now on the policy is another model."""
        self._tell(moved=True)

    def _tell(self, *, moved: bool) -> None:
        source = getattr(self.trainer.parts.reference, "source", None)
        if isinstance(source, FirstState):
            source.moved = moved


def fill_cache(trainer: "UniDPOTrainer", reference: CachedReference) -> None:
    """Computes what a cached reference lacks for the rows of a run, with a bar of its own."""
    loaders = [trainer.get_train_dataloader()]
    if trainer.eval_dataset is not None:
        loaders.append(trainer.get_eval_dataloader())
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
            f"Reference: {computed} answers computed, the others found, in {reference.store.path}",
            soft_wrap=True,
        )

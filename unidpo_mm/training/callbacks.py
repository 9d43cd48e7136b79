"""The callbacks of every trainer: they prepare a run when training begins and check its steps."""

import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..config.checks.python_arguments import check_steps
from ..data.batches import token_sizes
from ..data.row_table import columns_of
from ..data.workers import batch_of
from ..distributed import first_process, maximum
from ..distributed.sharding import held_count, sharding_of
from ..errors import ModelError, Problem, counted
from ..ledger.alarms import find_alarms, read_visits
from ..modeling.activation_memory import (
    LayerMemory,
    checkpoint_first,
    enable_checkpointing,
    measure_layers,
)
from ..modeling.logp_model import compute_logps
from ..modeling.placement import place_batch
from ..modeling.references.cached import CachedReference, InitialPolicy
from ..modeling.references.kinds import FrozenCopy, reference_digest
from ..modeling.references.moving import MovingLora
from ..records import Layout
from .console import print_startup_report
from .evaluation import SAMPLES_FILE, keep_samples
from .ledger_recorder import LedgerRecorder
from .nonfinite import handle_non_finite
from .run_record import WriteReport
from .saving import SavingTrainer

__all__ = ["TRAINER_CALLBACKS", "ActivationMemoryBudget", "max_tokens", "measure_first_batch"]

logger = logging.getLogger(__name__)

STATE_KEY = "UniDPOReference"
"""Key of the reference's digest in the trainer's state."""

USABLE_SHARE = 0.8
"""Share of the free memory that is used; the rest is left for buffers that are not estimated."""

GIGABYTE = 10**9


class _RunCallback(TrainerCallback):
    """A callback with access to its trainer."""

    def __init__(self, trainer: SavingTrainer) -> None:
        self.trainer = trainer


class StartupReport(_RunCallback):
    """A callback that prints the startup report on the main process when training begins."""

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the warmup against the number of steps, and print the report."""
        check_steps(self.trainer.args, state.max_steps)
        if state.is_world_process_zero:
            print_startup_report(self.trainer, max_steps=state.max_steps)


class SampleLog(_RunCallback):
    """A callback that removes the generated samples of steps that a resumed run repeats."""

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the samples up to the step at which training starts."""
        if state.is_world_process_zero:
            keep_samples(Path(args.output_dir) / SAMPLES_FILE, up_to=state.global_step)


class RecordLedger(_RunCallback):
    """A callback that opens the ledger when training begins, completes it and raises its alarms."""

    def __init__(self, trainer: SavingTrainer) -> None:
        super().__init__(trainer)
        self.raised: set[str] = set()

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the ledger, without the steps that a resumed run repeats."""
        trainer = self.trainer
        if not args.ledger:
            return
        settings = trainer.parts.settings
        trainer.ledger = LedgerRecorder(
            settings.loss,
            settings.describe(),
            rank=args.process_index,
            output_dir=Path(args.output_dir) if args.should_save else None,
        )
        trainer.ledger.rewind(state.global_step)

    def on_train_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the steps after the last checkpoint, and repeat all alarms of the run."""
        if self.trainer.ledger is not None:
            self.trainer.ledger.commit()
            self.raised.clear()
            self._raise_alarms(state)

    def on_save(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log new alarms."""
        self._raise_alarms(state)

    def _raise_alarms(self, state: TrainerState) -> None:
        ledger = self.trainer.ledger
        if ledger is None or ledger.files is None or not state.is_world_process_zero:
            return
        try:
            alarms = find_alarms(read_visits(ledger.files.folder))
        except Exception as error:  # an alarm must never end a run
            logger.warning("the alarms of the ledger cannot be computed: %s", error)
            return
        self.trainer.alarms = alarms
        for alarm in alarms:
            if alarm.name not in self.raised:
                self.raised.add(alarm.name)
                logger.warning("%s: %s", alarm.name, alarm)


class PrepareReference(_RunCallback):
    """A callback that prepares and checks the reference when training begins.

    It fills the cache of a cached reference. It also stores the digest of the reference in the
    trainer's state, which every checkpoint contains: a resumed run must use the reference that it
    started with.
    """

    def __init__(self, trainer: SavingTrainer) -> None:
        super().__init__(trainer)
        self.digest: str | None = None

    def on_init_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compute the digest on the first process before FSDP shards the weights."""
        if args.process_index == 0:
            self.digest = reference_digest(self.trainer.parts.reference)

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the reference and the optimizer, and fill the cache.

        Raises:
            ModelError: If a resumed run has a different reference, or the optimizer has none of the
                trainable weights.
        """
        self._check_digest(state)
        self._move_copy(args.device)
        if not (self.trainer.is_fsdp_enabled or self.trainer.is_deepspeed_enabled):
            _check_optimizer(kwargs.get("optimizer"), self.trainer.model)
        self._mark_trained(state.global_step > 0)
        reference = self.trainer.parts.reference
        if isinstance(reference, CachedReference) and args.reference_build == "before":
            _fill_cache(self.trainer, reference)

    def _move_copy(self, device: torch.device) -> None:
        """Move a second model to the device before the free memory is measured."""
        reference = self.trainer.parts.reference
        source = getattr(reference, "source", reference)
        if isinstance(source, FrozenCopy):
            source.logp_model.to(device)

    def _check_digest(self, state: TrainerState) -> None:
        digest = str(first_process(lambda: self.digest))
        callbacks: Any = state.stateful_callbacks
        recorded = callbacks.get(STATE_KEY, {}).get("digest")
        callbacks[STATE_KEY] = {"digest": digest}
        if state.global_step > 0 and recorded not in (None, digest):
            problem = (
                "the reference differs from the one that this run started with: the model passed "
                "to the trainer is not the model before training"
            )
            remedy = (
                "Pass the model and its adapter as at the start of the run; the trainer loads the "
                "checkpoint itself"
            )
            raise ModelError(Problem("resume_from_checkpoint", problem, remedy))

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record that the policy is no longer the model before training."""
        self._mark_trained(True)

    def _mark_trained(self, trained: bool) -> None:
        source = getattr(self.trainer.parts.reference, "source", None)
        if isinstance(source, InitialPolicy):
            source.trained = trained


class MoveReference(_RunCallback):
    """A callback that moves a reference towards the policy every N optimizer steps."""

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the reference if it is time, before a checkpoint of this step is saved."""
        reference = self.trainer.parts.reference
        if isinstance(reference, MovingLora) and state.global_step % reference.steps == 0:
            reference.move()


class ActivationMemoryBudget(_RunCallback):
    """A callback that checkpoints as few layers as the activation memory allows (`train.memory`).

    It measures one micro-batch when training begins, and computes from that how many layers have to
    be checkpointed so that the largest micro-batch fits.
    """

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure a micro-batch and choose the layers to checkpoint, if `memory` is set."""
        if args.memory is None:
            return
        trainer = self.trainer
        measured = measure_first_batch(trainer)
        automatic = args.memory == "auto"
        budget = _free_memory(trainer) if automatic else int(args.memory * GIGABYTE)
        largest_batch = max(max_tokens(trainer), measured.tokens)
        count = measured.layers_to_checkpoint(budget, tokens=largest_batch)
        (count,) = maximum([count])
        model = trainer.parts.logp_model.model
        if count:
            enable_checkpointing(model)
        checkpoint_first(model, count)
        if state.is_world_process_zero:
            Console(stderr=True).print(
                f"Activation memory: {count} of {counted(len(measured.kept), 'layer')} "
                f"checkpointed, for micro-batches of up to {counted(largest_batch, 'token')} in "
                f"{budget / GIGABYTE:.2g} GB",
                soft_wrap=True,
            )
            needed = measured.needed(count) * largest_batch / measured.tokens
            if needed > budget:
                logger.warning(
                    "memory (train.memory): even with every layer checkpointed, the activations of "
                    "the largest micro-batch need %.2g GB. Reduce per_device_train_batch_size or "
                    "max_length, or raise memory.",
                    needed / GIGABYTE,
                )


class StepGuard(_RunCallback):
    """A callback that checks the loss, the gradient and received signals before each step.

    Apart from logging, this is the only point in a step at which the host waits for the device.
    """

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Agree with all processes on whether the step is finite and whether to stop after it."""
        trainer, watch = self.trainer, self.trainer.watch
        scaled = getattr(trainer.accelerator, "scaler", None) is not None
        finite = watch.is_finite(scaled=scaled)
        if trainer.interruption.agree(problem=not finite):
            handle_non_finite(trainer)
        else:
            watch.consecutive_skips = 0


TRAINER_CALLBACKS: tuple[Callable[[SavingTrainer], TrainerCallback], ...] = (
    StartupReport,
    SampleLog,
    RecordLedger,
    PrepareReference,
    MoveReference,
    ActivationMemoryBudget,
    StepGuard,
    WriteReport,
)
"""The callbacks of every trainer, in the order in which they run."""


def _check_optimizer(optimizer: Any, model: nn.Module) -> None:
    """Check that an optimizer updates trainable weights of a model.

    An optimizer that was created before a LoRA adapter was added contains only frozen weights.

    Raises:
        ModelError: If it updates none of them.
    """
    if optimizer is None:
        return
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(p.requires_grad and id(p) in optimized for p in model.parameters()):
        problem = "the optimizer has none of the trainable weights"
        remedy = "Remove it, or create it from the trainable parameters of the final model"
        raise ModelError(Problem("optimizers", problem, remedy))


def _fill_cache(trainer: SavingTrainer, reference: CachedReference) -> None:
    """Compute the log-probs that are missing from the cache of a reference, with a progress bar."""
    loaders = [trainer.get_train_dataloader(read_once=True)]
    sets = trainer.eval_dataset
    for dataset in sets.values() if isinstance(sets, dict) else [sets]:
        if dataset is not None:
            loaders.append(trainer.get_eval_dataloader(dataset))
    console = Console(stderr=True)
    batches = track(
        itertools.chain.from_iterable(loaders),
        "references",
        total=sum(map(len, loaders)),
        console=console,
        disable=trainer.args.disable_tqdm or not trainer.is_world_process_zero(),
    )
    computed_before = reference.computed
    with torch.no_grad(), trainer.accelerator.autocast():
        for item in batches:
            parts = trainer.parts
            batch = place_batch(
                batch_of(item), parts.logp_model, parts.adapter, trainer.args.device
            )
            reference.token_logps(trainer.model_wrapped, batch)
    if trainer.is_world_process_zero():
        computed = reference.computed - computed_before
        console.print(
            f"Reference: log-probs of {counted(computed, 'response')} were computed, the others "
            f"were read from the cache in {reference.store.path}",
            soft_wrap=True,
        )


def measure_first_batch(trainer: SavingTrainer) -> LayerMemory:
    """Run the forward pass of one micro-batch and return the activations that each layer keeps."""
    model = trainer.parts.logp_model.model
    checkpoint_first(model, 0)
    loader = trainer.get_train_dataloader(read_once=True)
    batch = batch_of(next(iter(loader))).to(trainer.args.device)
    wrapped = trainer.model_wrapped
    with trainer.accelerator.no_sync(wrapped), trainer.accelerator.autocast():
        return measure_layers(
            model,
            lambda: compute_logps(wrapped, trainer.parts.adapter, batch),
            batch.inputs.tokens["input_ids"].numel(),
        )


def max_tokens(trainer: SavingTrainer) -> int:
    """Return an upper bound on the tokens in a micro-batch; 0 if the preflight is off."""
    preflight = trainer.parts.preflight
    if preflight is None:
        return 0
    if trainer.args.tokens_per_micro_batch is not None and trainer.parts.lengths is not None:
        sizes = token_sizes(trainer.parts.lengths, trainer.layout.layout)
        longest = max((rows * tokens for rows, tokens in sizes), default=0)
        return max(trainer.args.tokens_per_micro_batch, longest)
    max_pairs = max(
        trainer.args.per_device_train_batch_size,
        int(columns_of(trainer.parts.train_rows).units.max(initial=0)),
    )
    layout: Layout = "plain" if trainer.layout.layout == "plain" else "packed"
    tokens = preflight.tokens_of_pair[layout]
    loss = trainer.parts.settings.loss
    if trainer.args.image_term is not None or loss.needs_labels:
        tokens += preflight.longest  # of another image or a mismatched response
    return round(tokens * max_pairs)


def _free_memory(trainer: SavingTrainer) -> int:
    """Return the number of bytes that activations may use on this device."""
    device = trainer.args.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = int(psutil.virtual_memory().available) // max(trainer.args.world_size, 1)
    logp_model = trainer.parts.logp_model
    trained = sum(held_count(p) for p in logp_model.parameters() if p.requires_grad)
    if sharding_of(trainer.args).stage in (1, 2):
        trained //= max(trainer.args.world_size, 1)
    vocabulary: int = logp_model.config.get_text_config().vocab_size
    # not allocated yet: a gradient and two moments per trained weight, of 4 bytes each, and three
    # float32 tensors of the same size as the logits of a chunk
    reserved = 12 * trained + 3 * 4 * logp_model.positions_per_chunk(device) * vocabulary
    return max(int(USABLE_SHARE * free) - reserved, 1)

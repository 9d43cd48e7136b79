"""The part of the trainer that resumes a run, and ends it after a signal.

It chooses the same checkpoint on every process, compares the run with it (`identity.py`), applies
changed options, and saves a checkpoint before a signal ends the run (`interruption.py`).
"""

import contextlib
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import trainer as trainer_module
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_utils import TrainOutput

from ..data.stream_batches import StreamDataset, StreamPlan
from ..distributed import errors_shared, gather_objects, partial_state_loading
from ..errors import ModelError, Problem, RecipeError, counted
from ..ledger.files import later_parts
from ..modeling.load import reload_weights
from ..modeling.lora_kinds import load_trained
from ..modeling.references.moving import MovingLora
from .checkpoints import (
    MANIFEST_FILE,
    CheckpointDamaged,
    checkpoint_path,
    checkpoint_paths,
    clean_up,
    set_aside,
    step_of,
    verify,
)
from .configured_loss import pinned_settings
from .identity import compare, read_identity, refuse_changes
from .interruption import TrainingInterrupted
from .numerical_watch import NonFiniteError
from .saving import STREAM_FILE, SavingTrainer, replaced

__all__ = ["CheckpointedTrainer", "choose_checkpoint"]

logger = logging.getLogger(__name__)

HYPERPARAMETERS = ("weight_decay", "betas", "eps")
"""Keys of an optimizer's parameter groups that are options; other keys may be state."""

SCHEDULE = frozenset(
    """
    learning_rate learning_rates lr_scheduler_kwargs lr_scheduler_type max_steps num_train_epochs
    optim warmup_steps
    """.split()
)
"""Options that determine the learning rate of a step."""

MODEL_ONLY = "it contains the model but no optimizer state (save_only_model)"


class CheckpointedTrainer(SavingTrainer):
    """A trainer that resumes from complete checkpoints of the same run."""

    # ---- train ----

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train, or resume; see `transformers.Trainer.train`.

        Args:
            resume_from_checkpoint: True for the newest complete checkpoint in the output directory,
                or the path of a checkpoint. `None` starts from scratch and sets existing
                checkpoints aside.
            trial: As in transformers.
            ignore_keys_for_eval: As in transformers.

        Raises:
            RecipeError: If the directory is in use, no checkpoint can be used, or the checkpoint
                belongs to another run.
            NonFiniteError: If a loss, gradient or weight is not finite; see `on_nonfinite`.
            TrainingInterrupted: If a signal ended the run after it was saved.
        """
        with self._exclusive(), self.interruption.handled():
            checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
            if isinstance(self.train_dataset, StreamDataset):
                self.train_dataset.start = _stream_start(checkpoint, self.train_dataset.plan)
            output: TrainOutput = super().train(checkpoint, trial, ignore_keys_for_eval)
            self.interruption.stepping = False
            self._require_finite_weights()
            self._report_skipped()
            return output

    def _report_skipped(self) -> None:
        """Log the number of steps that were skipped because of NaN or infinity.

        Raises:
            NonFiniteError: If all steps were skipped.
        """
        skipped, steps = self.watch.skipped, self.state.global_step - self._initial_global_step
        if not skipped:
            return
        was = "was" if skipped == 1 else "were"
        text = f"{skipped} of {counted(steps, 'step')} {was} skipped: the loss or gradient was not "
        text += "finite"
        if skipped >= steps:
            raise NonFiniteError(
                Problem("training", text, "Replay the dump of the first skipped step")
            )
        self._warn("", [text])

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run an epoch, unless all steps are done: transformers would run one more step."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        self.interruption.stepping = True
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    # ---- resume ----

    def _checkpoint_to_resume(self, requested: str | bool | None) -> str | None:
        """Return the path of the checkpoint to resume from; `None` to start from scratch."""
        output_dir = self._output_dir()
        option = self.option_names.get("resume", "resume_from_checkpoint")
        with errors_shared():
            if self.args.should_save:
                clean_up(output_dir)
        if not requested:
            self._set_aside(checkpoint_paths(output_dir), "it belongs to an earlier run")
            return None
        if requested is True:
            newest, ignored = choose_checkpoint(output_dir, reads=self.args.should_save)
            if newest is None:
                text = f"there is no complete checkpoint in '{output_dir}'"
                text += f" ({'; '.join(ignored)})" if ignored else ""
                remedy = "Start from scratch, or choose another checkpoint"
                raise RecipeError(Problem(option, text, remedy))
            path = newest
            self._warn("ignored ", ignored)
        else:
            path = Path(str(requested))
            with errors_shared():
                if self.args.should_save:
                    _verify_requested(path, option=option)
        self._compare_identity(path)
        within = path.parent.resolve() == output_dir.resolve()
        others = [
            other
            for other in checkpoint_paths(output_dir)
            if not within or step_of(other) > step_of(path)
        ]
        after = step_of(path) if within else 0
        self._set_aside(others, f"the run continues from {path}", after=after)
        return str(path)

    def _set_aside(self, paths: list[Path], reason: str, *, after: int = 0) -> None:
        if paths or not after:
            paths = [*paths, *later_parts(self._output_dir(), after)]
        if not self.args.should_save or not paths:
            return
        names, aside = sorted(path.name for path in paths), set_aside(self._output_dir(), paths)
        logger.warning("moved %s to %s: %s", ", ".join(names), aside, reason)

    def _compare_identity(self, checkpoint: Path) -> None:
        """Check that the checkpoint belongs to this run, except for allowed changes."""
        with errors_shared():
            changes = []
            recorded = read_identity(checkpoint) if self.args.should_save else None
            if recorded is None and self.args.should_save:
                text = "'%s' has no record of its run, so changes are not detected"
                logger.warning(text, checkpoint)
            if recorded is not None and self.identity is not None:
                rows = {"data": self.parts.train_rows, "eval_data": self.parts.eval_rows}
                changes = compare(recorded, self.identity, rows)
                texts = refuse_changes(
                    changes,
                    self.args.allow_changes or (),
                    checkpoint=checkpoint,
                    names=self.option_names,
                )
                self._warn("changed since the checkpoint: ", texts)
        names = {change.name for change in changes}
        self._changed = frozenset().union(*gather_objects(names))

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        # `_compare_identity` compares all options; transformers compares a few of them and logs a
        # misleading warning
        with replaced(trainer_module, "compare_trainer_and_checkpoint_args", lambda *args: None):
            result: tuple[int, int] = super()._init_training_state(max_steps, *args, **kwargs)
        if self.state.global_step > max_steps:
            text = (
                f"the checkpoint is at step {self.state.global_step}, beyond max_steps {max_steps}"
            )
            option = self.option_names.get("max_steps", "max_steps")
            raise RecipeError(Problem(option, text, "Raise it, or choose an earlier checkpoint"))
        # transformers keeps the intervals of the checkpoint even if the options have changed
        self.state.compute_steps(self.args, max_steps)
        best = self.state.best_global_step
        if best and self.state.best_model_checkpoint is None:  # the output directory was moved
            path = checkpoint_path(self._output_dir(), best)
            self.state.best_model_checkpoint = str(path) if path.is_dir() else None
        return result

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the optimizer and scheduler states, then apply the changed options of this run.

        The saved states also contain learning rates and weight decay, which may have changed.

        Raises:
            RecipeError: If the checkpoint has no scheduler state.
        """
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        fresh: list[dict[str, Any]] = [dict(group) for group in optimizer.param_groups]
        rates = [group.get("initial_lr", group["lr"]) for group in fresh]
        path = Path(checkpoint) / SCHEDULER_NAME
        if not path.is_file():  # only possible for a checkpoint without a manifest
            option = self.option_names.get("resume", "resume_from_checkpoint")
            text = f"'{checkpoint}' cannot be used: it contains no {SCHEDULER_NAME}"
            raise RecipeError(Problem(option, text, "Choose another checkpoint"))
        saved = torch.load(path, weights_only=True)
        regrouped = len(saved.get("base_lrs", rates)) != len(rates)
        if regrouped or self._changed & {"optim", "optim_args"}:
            logger.warning("the optimizer starts without the state of the checkpoint")
            scheduler.load_state_dict({**saved, "base_lrs": rates})
        else:
            with partial_state_loading():
                super()._load_optimizer_and_scheduler(checkpoint)
        for group, options in zip(optimizer.param_groups, fresh, strict=True):
            group.update({key: options[key] for key in HYPERPARAMETERS if key in options})
        self._apply_learning_rates(rates)

    def _apply_learning_rates(self, rates: list[float]) -> None:
        """Continue the schedule with the learning rates of this run, if they have changed."""
        scheduler: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if not hasattr(scheduler, "lr_lambdas"):
            return
        if scheduler.base_lrs == rates and not self._changed & SCHEDULE:
            return
        scheduler.base_lrs = list(rates)
        current = [
            rate * schedule(scheduler.last_epoch)
            for rate, schedule in zip(rates, scheduler.lr_lambdas, strict=True)
        ]
        for group, rate, initial in zip(
            scheduler.optimizer.param_groups, current, rates, strict=True
        ):
            group["lr"], group["initial_lr"] = rate, initial
        scheduler._last_lr = current

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        settings = pinned_settings(self.parts.settings, resume_from_checkpoint)
        self.parts = dataclasses.replace(self.parts, settings=settings)
        if isinstance(self.parts.reference, MovingLora):
            self.parts.reference.load(Path(resume_from_checkpoint))
        if model is None and not hasattr(self.model.model, "peft_config"):
            reload_weights(self.model.model, resume_from_checkpoint)
            return
        if model is None and load_trained(self.model.model, Path(resume_from_checkpoint)):
            return
        unwrapped = replaced(self, "model", self.model.model)
        with unwrapped if model is None else contextlib.nullcontext():
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        best = Path(str(self.state.best_model_checkpoint))
        with errors_shared():
            if self.args.should_save:
                try:
                    verify(best)
                except CheckpointDamaged as error:
                    text = f"the best checkpoint {best} cannot be loaded: {error}"
                    remedy = "Use another checkpoint, or set load_best_model_at_end to false"
                    raise ModelError(Problem("load_best_model_at_end", text, remedy)) from None
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(best))

    # ---- end ----

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Log, evaluate and save as scheduled; after a signal, save and end the run."""
        if self.interruption.received:
            self.control.should_evaluate = False
            self.control.should_save = True
        saves, evaluates = self.control.should_save, self.control.should_evaluate
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if saves or evaluates:  # a signal may have arrived meanwhile
            self.interruption.agree()
        if not self.interruption.received:
            return
        if not saves:
            self._save_checkpoint(model, trial)
        path = checkpoint_path(self._output_dir(), self.state.global_step)
        text = f"Saved {path} at step {self.state.global_step} of {self.state.max_steps}. "
        text += "Run the same command again to continue"
        self._warn("", [text])
        raise TrainingInterrupted(self.interruption.received, text)


def choose_checkpoint(output_dir: Path, *, reads: bool) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint that is complete on every node.

    Every process must call it. Candidates are verified from the newest to the oldest, until one is
    complete.

    Args:
        output_dir: The directory of the checkpoints.
        reads: Whether this process reads the disk; exactly one process per disk does.

    Returns:
        The checkpoint, or `None` if there is none; and for each newer checkpoint that cannot be
        used, its name with the reason.
    """
    paths = checkpoint_paths(output_dir) if reads else []
    ignored: list[str] = []
    below: int | None = None
    while True:
        candidates = [path for path in paths if below is None or step_of(path) < below]
        newest = step_of(candidates[0]) if candidates else -1
        proposals = [step for step in gather_objects(newest if reads else None) if step is not None]
        step = min(proposals)
        if len(set(proposals)) > 1:
            ignored.append(f"checkpoint-{max(proposals)}: it does not exist on every node")
            below = max(proposals)
            continue
        if step < 0:
            return None, ignored
        reason = _why_unusable(candidates[0]) if reads else None
        reasons = [text for text in gather_objects(reason) if text is not None]
        if not reasons:
            return checkpoint_path(output_dir, step), ignored
        ignored.append(f"checkpoint-{step}: {reasons[0]}")
        below = step


def _stream_start(checkpoint: str | None, plan: StreamPlan) -> tuple[int, list[int] | None]:
    """Return the number of the next micro-batch and the state of the stream before it.

    Without a record in the checkpoint, the stream is read again from its start.

    Raises:
        RecipeError: If the number of sources has changed.
    """
    if checkpoint is None:
        return 0, None
    try:
        content = json.loads((Path(checkpoint) / STREAM_FILE).read_text(encoding="utf-8"))
        number, *state = map(int, content)
    except (OSError, ValueError, TypeError) as error:
        logger.warning("the stream is read again from its start: %s", error)
        return 0, None
    if len(state) != len(plan.open(None).state):
        text = f"the number of streamed sources has changed since '{checkpoint}'"
        remedy = "Use the sources of that run, or start a new run"
        raise RecipeError(Problem("data.sources", text, remedy))
    return number + 1, state


def _verify_requested(path: Path, *, option: str) -> None:
    """Verify a checkpoint that the user chose.

    A checkpoint of another program has no manifest, so it cannot be verified.

    Raises:
        RecipeError: If it is not a directory, differs from its manifest, or has no optimizer state.
    """
    if not path.is_dir():
        text = f"'{path}' is not a directory"
        raise RecipeError(Problem(option, text, "Set it to a checkpoint, auto or never"))
    reason = _why_unusable(path)
    if reason is None:
        return
    if not (path / MANIFEST_FILE).exists():
        logger.warning("'%s' has no manifest, so it cannot be verified", path)
        return
    remedy = "Choose another checkpoint, or set it to auto for the newest complete one"
    if reason == MODEL_ONLY:
        remedy = "Use it as model.name_or_path, or choose another checkpoint"
    raise RecipeError(Problem(option, f"'{path}' cannot be used: {reason}", remedy))


def _why_unusable(path: Path) -> str | None:
    try:
        manifest = verify(path)
    except CheckpointDamaged as error:
        return str(error)
    return None if manifest.resumable else MODEL_ONLY

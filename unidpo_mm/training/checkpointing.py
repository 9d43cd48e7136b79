"""The part of the trainer that saves and resumes.

transformers writes the files; this class decides when they become visible (`checkpoints.py`), which
checkpoint a run may resume from (`resume.py`, `identity.py`) and what happens on a signal
(`interruption.py`). Checkpoints hold the plain model: the scoring module around it is left out.
"""

import contextlib
import dataclasses
import json
import logging
import secrets
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import TrainOutput

from ..data.digest import data_digest
from ..errors import ModelError, Problem, RecipeError
from ..modeling.load import reload_weights
from ..modeling.processes import barrier, errors_shared, gather_objects
from ..modeling.scoring import ScoringModel
from .checkpoints import (
    IDENTITY_FILE,
    CheckpointDamaged,
    checkpoint_path,
    checkpoint_paths,
    clean_up,
    publish,
    publish_files,
    rotate,
    set_aside,
    staging_directory,
    step_of,
    verify,
    write_manifest,
)
from .config import UniDPOConfig
from .identity import compare, describe_model, recorded_options
from .interruption import Interruption, TrainingInterrupted
from .numerical_watch import NonFiniteError, NumericalWatch, non_finite_weights
from .pinned_settings import pinned_settings, write_settings
from .resume import choose_checkpoint, refuse_changes, verify_given
from .run_lock import exclusive
from .setup import RunParts

__all__ = ["CheckpointedTrainer"]

logger = logging.getLogger(__name__)

COMPARED_PACKAGES = ("torch", "transformers", "peft", "accelerate")
"""Versions that may change a result by rounding; a change is announced."""

HYPERPARAMETERS = ("weight_decay", "betas", "eps")
"""Keys of an optimizer's parameter groups that are options; the rest may be state."""

SCHEDULE = frozenset(
    {
        "learning_rate",
        "learning_rates",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_steps",
        "num_train_epochs",
        "optim",
        "warmup_steps",
    }
)
"""Options that set the learning rate of a step."""


class CheckpointedTrainer(Trainer):
    """transformers' trainer with atomic checkpoints and checked resuming.

    Attributes:
        option_names: Field of `UniDPOConfig` -> what the user calls it, for messages of runs that
            a recipe started; empty for runs from Python.
    """

    args: UniDPOConfig
    model: ScoringModel
    parts: RunParts
    option_names: Mapping[str, str]
    interruption: Interruption
    watch: NumericalWatch

    def _prepare_saving(self) -> None:
        """Find out what is shared between nodes, and what this run is."""
        self.option_names = {}
        self.interruption = Interruption(speaks=self.is_world_process_zero())
        self._staging: Path | None = None
        self._postponed_push = False
        self._changed: frozenset[str] = frozenset()
        self._save_on_each_disk()
        self._identity = self._describe() if self.args.should_save else None

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
                or the path of one. None starts anew; checkpoints that are there are set aside.
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
            output: TrainOutput = super().train(checkpoint, trial, ignore_keys_for_eval)
            self.interruption.end_steps()
            self._require_finite_weights()
            return output

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Run an epoch, unless the steps of the run are done: transformers would add one."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        self.interruption.start_steps()
        super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock of the output directory; see `run_lock`."""
        with contextlib.ExitStack() as stack:
            with errors_shared():
                if self.args.should_save:
                    option = self.option_names.get("output_dir", "output_dir")
                    stack.enter_context(exclusive(self._output_dir(), option=option))
            yield

    def _output_dir(self) -> Path:
        return Path(self.args.output_dir or "trainer_output")

    # ---- resume ----

    def _checkpoint_to_resume(self, requested: str | bool | None) -> str | None:
        """Return the verified checkpoint to resume from, or None to start anew."""
        output_dir = self._output_dir()
        option = self.option_names.get("resume", "resume_from_checkpoint")
        with errors_shared():
            if self.args.should_save:
                clean_up(output_dir)
        if not requested:
            self._set_aside(checkpoint_paths(output_dir), "it belongs to an earlier run")
            return None
        if requested is True:
            choice = choose_checkpoint(output_dir, reads=self.args.should_save)
            if choice.path is None:
                raise RecipeError(self._nothing_to_resume(option, choice.ignored))
            path = choice.path
            self._tell("ignored ", choice.ignored)
        else:
            path = Path(str(requested))
            with errors_shared():
                if self.args.should_save and verify_given(path, option=option) is None:
                    logger.warning("'%s' has no manifest, so it cannot be verified", path)
        self._compare_identity(path)
        within = path.parent.resolve() == output_dir.resolve()
        others = [
            other
            for other in checkpoint_paths(output_dir)
            if not within or step_of(other) > step_of(path)
        ]
        self._set_aside(others, f"the run continues from {path}")
        return str(path)

    def _nothing_to_resume(self, option: str, ignored: tuple[str, ...]) -> Problem:
        text = f"there is no complete checkpoint in '{self._output_dir()}'"
        if ignored:
            text += f" ({'; '.join(ignored)})"
        return Problem(option, text, "Start anew, or name another checkpoint")

    def _set_aside(self, paths: list[Path], reason: str) -> None:
        if not self.args.should_save or not paths:
            return
        names = ", ".join(sorted(path.name for path in paths))
        aside = set_aside(self._output_dir(), paths)
        logger.warning("moved %s to %s: %s", names, aside, reason)

    def _tell(self, prefix: str, texts: tuple[str, ...] | list[str]) -> None:
        if self.is_world_process_zero():
            for text in texts:
                logger.warning("%s%s", prefix, text)

    def _compare_identity(self, checkpoint: Path) -> None:
        """Refuse to resume a run that has become another one."""
        with errors_shared():
            changes = []
            recorded = self._recorded_identity(checkpoint) if self.args.should_save else None
            if recorded is not None and self._identity is not None:
                changes = compare(recorded, self._identity)
                texts = refuse_changes(
                    changes,
                    self.args.allow_changes or (),
                    checkpoint=checkpoint,
                    names=dict(self.option_names),
                )
                self._tell("changed since the checkpoint: ", texts)
        names = {change.name for change in changes}
        self._changed = frozenset().union(*gather_objects(names))

    def _recorded_identity(self, checkpoint: Path) -> Any:
        try:
            return json.loads((checkpoint / IDENTITY_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("'%s' does not say which run it belongs to", checkpoint)
            return None

    def _describe(self) -> dict[str, Any]:
        """Return what this run is; see `identity.py`."""
        parts = self.parts
        return {
            "options": recorded_options(self.args),
            "processes": self.args.world_size,
            "model": describe_model(parts.scorer.model, parts.adapter, parts.train_rows),
            "data": data_digest(parts.train_rows).to_json(),
            "eval_data": data_digest(parts.eval_rows).to_json() if parts.eval_rows else None,
            "versions": {name: version(name) for name in COMPARED_PACKAGES},
        }

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        result: tuple[int, int] = super()._init_training_state(max_steps, *args, **kwargs)
        # transformers keeps the intervals of the checkpoint where the options have changed
        self.state.compute_steps(self.args, max_steps)
        best = self.state.best_global_step
        if best and self.state.best_model_checkpoint is None:  # the output directory was moved
            path = checkpoint_path(self._output_dir(), best)
            self.state.best_model_checkpoint = str(path) if path.is_dir() else None
        return result

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both states, then apply the options of this run that differ from the checkpoint's.

        A state brings the learning rates and weight decay of its checkpoint back.
        """
        if checkpoint is None or self.is_deepspeed_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        optimizer: Any = self.optimizer
        scheduler: Any = self.lr_scheduler
        fresh: list[dict[str, Any]] = [dict(group) for group in optimizer.param_groups]
        rates = [group.get("initial_lr", group["lr"]) for group in fresh]
        saved = torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True)
        regrouped = len(saved.get("base_lrs", rates)) != len(rates)
        if regrouped or self._changed & {"optim", "optim_args"}:
            logger.warning("the optimizer starts without the state of the checkpoint")
            scheduler.load_state_dict({**saved, "base_lrs": rates})
        else:
            super()._load_optimizer_and_scheduler(checkpoint)
        for group, options in zip(optimizer.param_groups, fresh, strict=True):
            group.update({key: options[key] for key in HYPERPARAMETERS if key in options})
        self._apply_learning_rates(rates)

    def _apply_learning_rates(self, rates: list[float]) -> None:
        """Continue the schedule from the learning rates of this run, where they have changed."""
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

    # ---- save ----

    def _maybe_log_save_evaluate(
        self, tr_loss: Any, grad_norm: Any, model: nn.Module, trial: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Log, evaluate and save as asked; after a signal, save and end the run."""
        if self.interruption.received:
            self.control.should_evaluate = False
            self.control.should_save = True
        saves, evaluates = self.control.should_save, self.control.should_evaluate
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        if saves or evaluates:  # which may have taken long
            self.interruption.agree()
        if not self.interruption.received:
            return
        if not saves:
            self._save_checkpoint(model, trial)
        path = checkpoint_path(self._output_dir(), self.state.global_step)
        text = f"Saved {path} at step {self.state.global_step} of {self.state.max_steps}. "
        text += "Run the same command again to continue"
        self._tell("", [text])
        raise TrainingInterrupted(self.interruption.received, text)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint that becomes visible when all processes have written their files."""
        self._require_finite_weights()
        output_dir, step = Path(self._get_output_dir(trial)), self.state.global_step
        staged, target = staging_directory(output_dir), checkpoint_path(output_dir, step)
        resumable = bool(self.interruption.received) or not self.args.save_only_model
        with self._saving(staged, what=target.name), self._complete(resumable):
            super()._save_checkpoint(model, trial)
        barrier()
        self._record_best(output_dir, step)
        if self.args.should_save:
            with self._saving(staged, what=target.name):
                self._finish(staged / target.name, resumable=resumable)
                publish(staged / target.name, target)
            best = self.state.best_model_checkpoint
            limit = None if self.watch.in_a_row else self.args.save_total_limit  # keep good ones
            rotate(output_dir, limit, [Path(best) if best else None])
            with contextlib.suppress(OSError):
                staged.rmdir()
        barrier()
        if self._postponed_push:
            self._postponed_push = False
            super()._push_from_checkpoint(str(target))

    def save_final_model(self) -> None:
        """Save the trained model into the output directory, its manifest last.

        Every process calls it. Until the manifest is there, the run does not count as finished.
        """
        output_dir = self._output_dir()
        staged = staging_directory(output_dir) / "final"
        with self._exclusive():
            with self._saving(staged, what="the final model"):
                self.save_model(str(staged), _internal_call=True)
            barrier()
            if self.args.should_save:
                with self._saving(staged, what="the final model"):
                    self._finish(staged, resumable=False)
                    publish_files(staged, output_dir)
                with contextlib.suppress(OSError):
                    staged.parent.rmdir()
            barrier()
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _finish(self, folder: Path, *, resumable: bool) -> None:
        """Add what belongs to this run and the manifest."""
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        (folder / IDENTITY_FILE).write_text(json.dumps(self._identity), encoding="utf-8")
        write_manifest(
            folder,
            step=self.state.global_step,
            max_steps=self.state.max_steps,
            resumable=resumable,
            processes=self.args.world_size,
        )

    def _record_best(self, output_dir: Path, step: int) -> None:
        """Name the best checkpoint by where it is going to be, not by where it was staged."""
        best = self.state.best_global_step
        if not best:
            return
        path = checkpoint_path(output_dir, best)
        if best == step or path.is_dir():
            self.state.best_model_checkpoint = str(path)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Push after the checkpoint is complete: transformers asks while it is staged."""
        self._postponed_push = True

    @contextlib.contextmanager
    def _saving(self, staged: Path, *, what: str) -> Iterator[None]:
        """Write into the staging directory; explain an error of the disk and remove what is there.

        Raises:
            ModelError: If the files cannot be written, for example because the disk is full.
        """
        self._staging = staged
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "writ" not in str(error):
                raise
            shutil.rmtree(staged, ignore_errors=True)
            raise ModelError(self._not_saved(what, error)) from error
        finally:
            self._staging = None

    def _not_saved(self, what: str, error: Exception) -> Problem:
        paths = checkpoint_paths(self._output_dir())
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        previous = f"continue from {paths[0].name}" if paths else "start anew"
        return Problem(
            self.option_names.get("output_dir", "output_dir"),
            f"{what} could not be written to '{self._output_dir()}' ({reason})",
            f"Make room or choose another directory; the same command will {previous}",
        )

    @contextlib.contextmanager
    def _complete(self, resumable: bool) -> Iterator[None]:
        """Save everything for a while, where only the model would be saved."""
        only_model = self.args.save_only_model
        self.args.save_only_model = not resumable
        try:
            yield
        finally:
            self.args.save_only_model = only_model

    def _require_finite_weights(self) -> None:
        """Refuse to save weights that are not finite.

        Raises:
            NonFiniteError: With the names of the weights; the checkpoints of before stay.
        """
        broken = non_finite_weights(self.model)
        with errors_shared():
            if not broken:
                return
            names = ", ".join(name.removeprefix("model.") for name in broken[:3])
            text = f"weights are not finite after step {self.state.global_step} ({names}"
            text += f" and {len(broken) - 3} more)" if len(broken) > 3 else ")"
            remedy = "Lower the learning rate; nothing was saved, earlier checkpoints are kept"
            raise NonFiniteError(Problem("weights", text, remedy))

    # ---- disks ----

    def _save_on_each_disk(self) -> None:
        """Save on each node where nodes do not share the output directory; every process calls it.

        transformers saves on the first node only unless `save_on_each_node` is set, and the others
        would look in vain for what they resume from.
        """
        args = self.args
        local_size = len(set(gather_objects(args.local_process_index)))
        if args.save_on_each_node or local_size == args.world_size:
            return
        token = gather_objects(secrets.token_hex(8))[0]
        probe = self._output_dir() / f".probe-{token}"
        if args.process_index == 0:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
        barrier()
        shared = all(gather_objects(probe.exists()))
        barrier()
        if args.process_index == 0:
            probe.unlink(missing_ok=True)
        if not shared:
            args.save_on_each_node = True
            self._tell("", ["nodes do not share the output directory: each saves its own"])

    # ---- checkpoints hold the plain model ----

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if state_dict is not None:
            state_dict = {name.removeprefix("model."): value for name, value in state_dict.items()}
        with self._plain_model():
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            write_settings(self.parts.settings, output_dir or self._output_dir())

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        settings = pinned_settings(self.parts.settings, resume_from_checkpoint)
        self.parts = dataclasses.replace(self.parts, settings=settings)
        if model is None and not hasattr(self.model.model, "peft_config"):
            reload_weights(self.model.model, resume_from_checkpoint)
            return
        with self._plain_model() if model is None else contextlib.nullcontext():
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

    @contextlib.contextmanager
    def _plain_model(self) -> Iterator[None]:
        """Show transformers the model without its scoring module for a while."""
        scorer = self.model
        plain: Any = scorer.model
        self.model = plain
        try:
            yield
        finally:
            self.model = scorer

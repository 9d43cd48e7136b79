"""The part of the trainer that saves.

transformers writes the files. This class makes them visible when they are complete
(`checkpoints.py`), adds the identity of the run (`identity.py`) and handles write errors such as a
full disk. Checkpoints contain the plain model, without the `LogpModel` around it.
"""

import contextlib
import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from ..config.python import UniDPOConfig
from ..data.digest import data_digest
from ..distributed import barrier, errors_shared, first_process, gather_objects
from ..errors import ModelError, Problem
from ..extras import installed_version
from ..ledger.alarms import Alarm
from ..modeling.logp_model import LogpModel, unwrap_peft
from ..modeling.peft_models import is_peft_model
from ..modeling.references.moving import MovingLora
from ..modeling.shared_layers import SharedLayers
from .checkpoints import (
    IDENTITY_FILE,
    checkpoint_path,
    checkpoint_paths,
    publish,
    publish_files,
    rotate,
    staging_directory,
    write_manifest,
)
from .configured_loss import write_settings
from .divided_weights import saving_whole_weights
from .generation_settings import keep_settings, prepare_settings
from .identity import describe_model, recorded_options
from .interruption import Interruption
from .ledger_recorder import LedgerRecorder
from .metrics import MetricSums
from .numerical_watch import NonFiniteError, NumericalWatch, non_finite_weights
from .output_directory import exclusive
from .run_parts import LayoutChoice, RunParts

__all__ = ["STREAM_FILE", "SavingTrainer", "replaced"]

logger = logging.getLogger(__name__)

STREAM_FILE = "stream.json"
"""The file of a checkpoint with the state of a stream of rows, see `SavingTrainer.stream_state`."""

COMPARED_PACKAGES = ("torch", "transformers", "peft", "accelerate")
"""Packages whose version may affect results by rounding errors; a change is logged."""

WRITE_FAILED = re.compile(r"writ|inline_container|iostream")
"""Parts of torch's messages if a file cannot be written: it raises RuntimeError, not OSError."""


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute inside the block."""
    inherited, original = name not in vars(owner), getattr(owner, name, None)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if inherited:
            delattr(owner, name)
        else:
            setattr(owner, name, original)


class SavingTrainer(Trainer):
    """transformers' trainer with checkpoints that are complete or invisible.

    Attributes:
        parts: Model, data, reference and loss of the run.
        layout: The layout of batches.
        shared_layers: The layers that run once for policy and reference; `None` if there are none.
        option_names: Field of `UniDPOConfig` -> its name in a recipe, for messages; empty for runs
            from Python.
        interruption: Signals that this process received.
        watch: Checks for numbers that are not finite.
        train_sums: Metrics since the last log.
        metrics_before: The sums of `train_sums` before the current step.
        stream_state: Number of the last micro-batch of a stream that this process has used, and the
            state of the stream after it; `None` without a stream.
        units: Sum of the weights of all units of the current step, over all processes.
        ledger: Records the visits of all pairs; `None` if it is off, and before training begins.
        alarms: What the ledger has shown so far.
        recipe: The recipe with its defaults; empty for a run from Python.
    """

    args: UniDPOConfig
    model: LogpModel
    parts: RunParts
    layout: LayoutChoice
    shared_layers: SharedLayers | None = None
    option_names: Mapping[str, str]
    interruption: Interruption
    watch: NumericalWatch
    train_sums: MetricSums
    metrics_before: Tensor
    units: Tensor
    stream_state: list[int] | None = None
    ledger: LedgerRecorder | None = None
    alarms: Sequence[Alarm] = ()
    recipe: Mapping[str, Any] = {}

    if TYPE_CHECKING:

        def get_train_dataloader(self, *, read_once: bool = False) -> DataLoader[Any]:
            """Return micro-batches of complete groups; see `UniDPOTrainer`."""

    def _prepare_saving(self) -> None:
        """Check what is saved and where, and record the identity of the run."""
        plain: Any = self.parts.logp_model.model
        if not is_peft_model(plain):  # a LoRA adapter is saved without generation settings
            prepare_settings(getattr(plain, "generation_config", None))
        self.option_names = {}
        self.interruption = Interruption(prints=self.is_world_process_zero())
        self._staging: Path | None = None
        self._postponed_push = False
        self._last_stream_state: list[int] | None = None
        self._changed: frozenset[str] = frozenset()
        self._save_on_each_disk()
        self.identity = self._describe() if self.args.should_save else None

    def _describe(self) -> dict[str, Any]:
        """Return the identity of this run; see `identity.py`."""
        parts = self.parts
        return {
            "options": recorded_options(self.args),
            "processes": self.args.world_size,
            "model": describe_model(parts.logp_model.model, parts.adapter),
            "data": data_digest(parts.train_rows).to_json(),
            "eval_data": data_digest(parts.eval_rows).to_json() if parts.eval_rows else None,
            "versions": {name: installed_version(name) for name in COMPARED_PACKAGES},
        }

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock of the output directory; see `exclusive`."""
        with contextlib.ExitStack() as stack:
            with errors_shared():
                if self.args.should_save:
                    option = self.option_names.get("output_dir", "output_dir")
                    stack.enter_context(exclusive(self._output_dir(), option=option))
            yield

    def _output_dir(self) -> Path:
        return Path(self.args.output_dir or "trainer_output")

    def _warn(self, prefix: str, texts: list[str]) -> None:
        if self.is_world_process_zero():
            for text in texts:
                logger.warning("%s%s", prefix, text)

    # ---- save ----

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint, which becomes visible when all processes have written their files."""
        self._require_finite_weights()
        output_dir, step = Path(self._get_output_dir(trial)), self.state.global_step
        staged, target = staging_directory(output_dir), checkpoint_path(output_dir, step)
        resumable = bool(self.interruption.received) or not self.args.save_only_model
        everything = replaced(self.args, "save_only_model", not resumable)  # with the optimizer
        with self._saving(staged, what=target.name), everything:
            super()._save_checkpoint(model, trial)
        states = [state for state in gather_objects(self.stream_state) if state is not None]
        self._last_stream_state = max(states, default=None)
        if self.ledger is not None:
            self.ledger.commit()
        barrier()
        self._record_best(output_dir, step)
        if self.args.should_save:
            with self._saving(staged, what=target.name):
                self._finish(staged / target.name, resumable=resumable)
                publish(staged / target.name, target)
            best = self.state.best_model_checkpoint
            # while steps are skipped, keep the checkpoints from before
            limit = None if self.watch.consecutive_skips else self.args.save_total_limit
            rotate(output_dir, limit, [Path(best) if best else None])
            with contextlib.suppress(OSError):
                staged.rmdir()
        barrier()
        if self._postponed_push:
            self._postponed_push = False
            super()._push_from_checkpoint(str(target))

    def save_final_model(self) -> None:
        """Save the trained model into the output directory, its manifest last.

        Every process calls it. The run counts as finished only if the manifest exists.
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
        """Add the trainer's state, the identity of the run and the manifest."""
        self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        (folder / IDENTITY_FILE).write_text(json.dumps(self.identity), encoding="utf-8")
        if resumable and self._last_stream_state is not None:
            content = json.dumps(self._last_stream_state)
            (folder / STREAM_FILE).write_text(content, encoding="utf-8")
        reference = self.parts.reference
        if resumable and isinstance(reference, MovingLora):
            reference.save(folder)
        write_manifest(
            folder,
            step=self.state.global_step,
            max_steps=self.state.max_steps,
            resumable=resumable,
            processes=self.args.world_size,
        )

    def _record_best(self, output_dir: Path, step: int) -> None:
        """Record the final path of the best checkpoint, not the staged one."""
        best = self.state.best_global_step
        if not best:
            return
        path = checkpoint_path(output_dir, best)
        if best == step or path.is_dir():
            self.state.best_model_checkpoint = str(path)

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging or super()._get_output_dir(trial))

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Postpone the push until the checkpoint is complete: transformers calls this too early."""
        self._postponed_push = True

    @contextlib.contextmanager
    def _saving(self, staged: Path, *, what: str) -> Iterator[None]:
        """Write into the staging directory; on a write error, remove it and explain the error.

        Raises:
            ModelError: If the files cannot be written, for example because the disk is full.
        """
        self._staging = staged
        try:
            yield
        except (OSError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not WRITE_FAILED.search(str(error)):
                raise
            shutil.rmtree(staged, ignore_errors=True)
            raise ModelError(self._save_problem(what, error)) from error
        finally:
            self._staging = None

    def _save_problem(self, what: str, error: Exception) -> Problem:
        paths = checkpoint_paths(self._output_dir())
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        previous = f"resume from {paths[0].name}" if paths else "start from scratch"
        return Problem(
            self.option_names.get("output_dir", "output_dir"),
            f"{what} could not be written to '{self._output_dir()}' ({reason})",
            f"Free disk space or choose another directory; the same command will {previous}",
        )

    def _require_finite_weights(self) -> None:
        """Check that all trainable weights are finite before they are saved.

        Raises:
            NonFiniteError: If some are not; earlier checkpoints are kept.
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
        """Save on each node if nodes do not share the output directory; every process calls it.

        Unless `save_on_each_node` is set, transformers saves on the first node only, and the others
        would have no checkpoint to resume from.
        """
        args = self.args
        local_size = len(set(gather_objects(args.local_process_index)))
        if args.save_on_each_node or local_size == args.world_size:
            return
        token = first_process(lambda: secrets.token_hex(8))
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
            self._warn(
                "", ["nodes do not share the output directory: each saves its own checkpoints"]
            )

    # ---- checkpoints hold the plain model ----

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the model as `from_pretrained` reads it; every process calls it."""
        with saving_whole_weights(self.accelerator):
            super().save_model(output_dir, _internal_call)

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if state_dict is not None:
            state_dict = {name.removeprefix("model."): value for name, value in state_dict.items()}
        plain: Any = unwrap_peft(self.parts.logp_model.model)
        keep_settings(getattr(plain, "generation_config", None))
        with contextlib.ExitStack() as stack:
            stack.enter_context(replaced(self, "model", self.model.model))
            if self.args.save_on_each_node:
                # transformers only lets the first process of the first node write weights
                stack.enter_context(replaced(plain, "should_save_on_this_rank", bool))
            super()._save(output_dir, state_dict)
        if self.args.should_save:
            write_settings(self.parts.settings, output_dir or self._output_dir())

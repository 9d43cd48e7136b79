"""Callbacks that check each optimizer step, and trim the samples file when a run resumes."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from .context import TrainingContext
from .evaluation import SAMPLES_FILE, keep_samples
from .nonfinite import handle_non_finite

__all__ = ["SampleLog", "StepGuard"]


class SampleLog(TrainerCallback):
    """A callback that removes the generated samples of steps that a resumed run repeats."""

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the samples up to the step at which training starts."""
        if state.is_world_process_zero:
            keep_samples(Path(args.output_dir) / SAMPLES_FILE, up_to=state.global_step)


class StepGuard(TrainerCallback):
    """A callback that checks loss, gradient and signals before each optimizer step.

    Apart from logging, this is the only time in a step at which the host waits for the device.
    """

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

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

"""What the trainer does before each optimizer step, and to the log of samples when it resumes."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from .context import TrainingContext
from .evaluation import SAMPLES_FILE, keep_samples
from .nonfinite import handle_non_finite

__all__ = ["SampleLog", "StepGuard"]


class SampleLog(TrainerCallback):
    """Removes generated samples of steps that a resumed run does again."""

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the samples up to the step that training starts from."""
        if state.is_world_process_zero:
            keep_samples(Path(args.output_dir) / SAMPLES_FILE, up_to=state.global_step)


class StepGuard(TrainerCallback):
    """Looks at loss and gradient before each optimizer step, and at signals.

    It is the only place of a step where the host waits for the device, beside the logs.
    """

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_pre_optimizer_step(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Agree with all processes on whether the step is finite and whether to end after it."""
        trainer, watch = self.trainer, self.trainer.watch
        scaled = getattr(trainer.accelerator, "scaler", None) is not None
        finite = watch.is_finite(scaled=scaled)
        if trainer.interruption.agree(problem=not finite):
            handle_non_finite(trainer)
        else:
            watch.in_a_row = 0

"""The interface of the trainer that callbacks use."""

from collections.abc import Mapping
from typing import Any, Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainerState

from ..config.python import UniDPOConfig
from .interruption import Interruption
from .metrics import MetricSums
from .numerical_watch import NumericalWatch
from .run_parts import LayoutChoice, RunParts

__all__ = ["TrainingContext"]


class TrainingContext(Protocol):
    """A training in progress, as `UniDPOTrainer` implements it.

    Attributes:
        args: The settings.
        parts: Model, data, reference and loss.
        layout: The layout of batches.
        model, model_wrapped: The policy, and the policy as accelerate prepared it.
        accelerator: The accelerator of this process.
        state: Step, epoch and log, as in transformers.
        eval_dataset: The evaluation set, or a dict of several by name.
        watch: Checks for numbers that are not finite.
        interruption: Signals that this process received.
        train_sums: Metrics since the last log.
        metrics_before: The sums of `train_sums` before the current step.
        units: Sum of the weights of all units of the current step, over all processes.
        option_names: Name of a setting -> its name in a recipe, for messages; empty for runs from
            Python.
    """

    args: UniDPOConfig
    parts: RunParts
    layout: LayoutChoice
    model: Any
    model_wrapped: nn.Module
    accelerator: Accelerator
    state: TrainerState
    eval_dataset: Any
    watch: NumericalWatch
    interruption: Interruption
    train_sums: MetricSums
    metrics_before: Any
    units: Tensor
    option_names: Mapping[str, str]
    is_fsdp_enabled: bool
    is_deepspeed_enabled: bool

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return micro-batches of the training set."""
        ...

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return micro-batches of an evaluation set."""
        ...

    def is_world_process_zero(self) -> bool:
        """Return whether this is the first process."""
        ...

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy; every process calls it."""
        ...

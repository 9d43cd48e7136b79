"""`UniDPOConfig`: transformers' `TrainingArguments` and the options of preference tuning."""

import copy
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainingArguments

from ..secrets import is_secret_key, mask_secrets
from .aliases import rename_former_options
from .checks.python_arguments import (
    check_arguments,
    check_processes,
    choose_workers,
    use_cpu_without_gpus,
)
from .image_preference import ImageTerm
from .loss_aliases import LossAliases, register_losses
from .options import Options
from .sections import ScoreOptions

__all__ = ["UniDPOConfig"]


@dataclass
class UniDPOConfig(Options, LossAliases, TrainingArguments):
    """Options of `UniDPOTrainer`: those of `Options`, and all fields of `TrainingArguments`.

    Fields that TRL's `DPOConfig` also has have the same names. Batch sizes count pairs.
    """

    precompute_ref_log_probs: bool = False
    """TRL's name of ``reference="cached"``."""
    sync_ref_model: bool = False
    """TRL's switch for ``reference_sync_steps``, with the two values below."""
    ref_model_sync_steps: int = 512
    """TRL's name of ``reference_sync_steps``, used if ``sync_ref_model`` is true."""
    ref_model_mixup_alpha: float = 0.6
    """TRL's name of ``reference_sync_alpha``, used if ``sync_ref_model`` is true."""
    image_min_pixels: int | None = None
    """Deprecated: the former name of ``image_min_size``."""
    image_max_pixels: int | None = None
    """Deprecated: the former name of ``image_max_size``."""
    learning_rate: float = 1e-6
    """Initial learning rate; the released text settings use 1e-6."""
    log_level_replica: str = "error"
    """Log level of transformers on all processes but the first, which prints the warnings."""
    logging_nan_inf_filter: bool = False
    """False, unlike in transformers, so that a NaN loss is logged as NaN."""
    dataloader_num_workers: int | None = None  # type: ignore[assignment] # null is resolved
    """Number of processes that read data; null: 4 on CUDA (each 2 batches ahead), else 0."""
    remove_unused_columns: bool = False
    """Rows keep their fields until the adapter encodes them."""
    accelerator_config: dict[str, Any] | str | None = field(default=None)
    """As in `TrainingArguments`, but batches are not dispatched; the sampler makes them even."""

    def __post_init__(self) -> None:
        if self.precompute_ref_log_probs:
            self.reference, self.precompute_ref_log_probs = "cached", False
        if self.sync_ref_model:
            self.sync_ref_model = False
            self.reference_sync_steps = self.ref_model_sync_steps
            self.reference_sync_alpha = self.ref_model_mixup_alpha
        rename_former_options(self)
        register_losses(self)
        check_arguments(self)
        if self.accelerator_config is None or isinstance(self.accelerator_config, dict):
            options = self.accelerator_config or {}
            # The sampler adds fillers of weight 0, so that all processes have as many batches.
            self.accelerator_config = {"dispatch_batches": False, "even_batches": False, **options}
        use_cpu_without_gpus(self)
        choose_workers(self)
        super().__post_init__()  # type: ignore[no-untyped-call] # as transformers wrote it
        check_processes(self)

    @property
    def score_options(self) -> ScoreOptions:
        """The meaning of the scores of data sets in memory."""
        return ScoreOptions.model_validate(self.scores or {})

    @property
    def image_term(self) -> ImageTerm | None:
        """The image preference with its defaults; `None` if there is none."""
        values: Any = self.image_preference
        return None if values is None else ImageTerm(**values)

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without access tokens: checkpoints contain these settings."""
        state = {**self.__dict__, "hub_token": None}
        if self.model_init_kwargs:
            state["model_init_kwargs"] = {
                name: value
                for name, value in self.model_init_kwargs.items()
                if not is_secret_key(name)
            }
        return state

    def __copy__(self) -> "UniDPOConfig":
        """Copy all attributes, including the access tokens that `__getstate__` omits."""
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> "UniDPOConfig":
        """Copy all attributes deeply, as `__copy__`."""
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def to_dict(self) -> dict[str, Any]:
        """Return the settings with masked secrets, as trackers record them."""
        settings = super().to_dict()  # type: ignore[no-untyped-call] # as transformers wrote it
        masked: dict[str, Any] = mask_secrets(settings)
        return masked

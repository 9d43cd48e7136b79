"""Builders of small trainers for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from unidpo_mm import UniDPOConfig, UniDPOTrainer


def resumable_config(output: Path, **settings: Any) -> UniDPOConfig:
    """Return settings of a DPO run with AdamW whose checkpoints can be resumed."""
    defaults = {
        "loss_type": "dpo",
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    return config(output, **{**defaults, **settings})


def config(output: Path, **settings: Any) -> UniDPOConfig:
    """Return settings of a quiet, deterministic CPU run: SGD, no clipping, no schedule."""
    return UniDPOConfig(
        output_dir=str(output),
        **{
            "use_cpu": True,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "optim": "sgd",
            "learning_rate": 0.05,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "weight_decay": 0.0,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "max_steps": 3,
            "eval_generations": 0,
            **settings,
        },
    )


def make_trainer(
    model: Any,
    rows: Sequence[Any],
    args: UniDPOConfig,
    *,
    cls: type[UniDPOTrainer] = UniDPOTrainer,
    **kwargs: Any,
) -> UniDPOTrainer:
    model = str(model) if isinstance(model, Path) else model
    return cls(model, args, train_dataset=list(rows), **kwargs)


def state_of(trainer: UniDPOTrainer) -> dict[str, Tensor]:
    """Return a copy of the weights of the model."""
    plain: Any = trainer.model.model
    return {name: value.detach().clone() for name, value in plain.state_dict().items()}

"""Liger kernels: fused norms, rotary embeddings and feed-forward layers for GPUs.

transformers applies them to the model that a trainer gets, and would find `LogpModel` there and do
nothing. So they are applied to the transformers model inside. Those that replace the loss are not
applied, because log-probs are computed without it.
"""

import contextlib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ..errors import ModelError, Problem
from .logp_model import unwrap_peft

__all__ = ["already_applied", "apply_liger_kernels"]

WHERE = "train.use_liger_kernel"

LOSSES = ("cross_entropy", "fused_linear_cross_entropy")
"""Kernels that replace the loss of a plain model."""


def apply_liger_kernels(model: nn.Module, settings: Mapping[str, Any] | None) -> None:
    """Replace layers of a transformers model, or of one inside a PEFT model, in place.

    Args:
        model: The model.
        settings: Kernel -> whether it is used, for example ``{"rope": False}``; `None` for all.

    Raises:
        ModelError: If the kernels are not installed or do not support the model or the machine.
    """
    inner = unwrap_peft(model)
    settings = settings or {}
    wrong = [name for name in LOSSES if settings.get(name)]
    problem, remedy = "", "Remove it"
    if wrong:
        problem = f"{wrong[0]} replaces the loss of a plain model, which is not computed"
        raise ModelError(Problem("train.liger_kernel_config", problem, f"Remove {wrong[0]}"))
    if find_spec("liger_kernel") is None:
        problem, remedy = "the package is not installed", "Run pip install liger-kernel"
    elif not torch.cuda.is_available():
        problem = "the kernels need a GPU, and there is none"
    elif inner.config.model_type not in _supported_types():
        problem = f"there are no kernels for models of type '{inner.config.model_type}'"
    if problem:
        raise ModelError(Problem(WHERE, problem, remedy))
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    losses = dict.fromkeys(LOSSES, False)
    _apply_liger_kernel_to_instance(model=inner, **{**settings, **losses})


def _supported_types() -> Mapping[str, Any]:
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    types: Mapping[str, Any] = MODEL_TYPE_TO_APPLY_LIGER_FN
    return types


@contextlib.contextmanager
def already_applied() -> Iterator[None]:
    """Let the trainer of transformers not apply the kernels again.

    It would not recognize the model, and warn that it has no kernels.
    """
    import transformers.trainer

    trainer: Any = transformers.trainer

    original = trainer.apply_liger_kernel
    trainer.apply_liger_kernel = lambda *args: None
    try:
        yield
    finally:
        trainer.apply_liger_kernel = original

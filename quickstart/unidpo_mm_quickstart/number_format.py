"""The number format of the demo's models: the one that this processor multiplies fast."""

import torch

from unidpo_mm.training.number_format import fastest_dtype as compute_dtype

__all__ = ["compute_dtype", "recipe_keys"]


def recipe_keys(dtype: torch.dtype) -> list[str]:
    """Return the overrides of a recipe that computes in `dtype`."""
    name = str(dtype).removeprefix("torch.")
    return [f"model.dtype={name}", f"train.bf16={str(dtype is torch.bfloat16).lower()}"]

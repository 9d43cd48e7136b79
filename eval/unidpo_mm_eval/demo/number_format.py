"""Chooses the number format that this processor multiplies fast.

Processors with instructions for bfloat16 multiply it several times faster than float32; others
emulate it, up to fifty times slower, and a demo of five minutes would take hours.
"""

import time
from functools import cache

import torch

__all__ = ["compute_dtype", "recipe_keys"]

SIZE = 384
"""Rows and columns of the matrices that are multiplied: a tenth of a second at the very worst."""


@cache
def compute_dtype() -> torch.dtype:
    """Returns bfloat16 where matrix products in it are faster here, else float32."""
    return min((torch.bfloat16, torch.float32), key=_seconds)


def recipe_keys(dtype: torch.dtype) -> list[str]:
    """Returns the overrides of a recipe that computes in `dtype`."""
    name = str(dtype).removeprefix("torch.")
    return [f"model.dtype={name}", f"train.bf16={str(dtype is torch.bfloat16).lower()}"]


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    found = []
    for _ in range(3):  # the first one chooses kernels
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        found.append(time.perf_counter() - began)
    return min(found)

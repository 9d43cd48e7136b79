"""Measure how fast this processor multiplies bfloat16 matrices.

Processors with bfloat16 instructions multiply it several times faster than float32. Others emulate
it up to fifty times slower, so that a run of minutes would take hours.
"""

import time
from functools import cache

import torch

__all__ = ["bfloat16_slowdown", "fastest_dtype"]

SIZE = 384
"""Rows and columns of the matrices; even slow processors need less than a tenth of a second."""


@cache
def fastest_dtype() -> torch.dtype:
    """Return bfloat16 if its matrix products are faster on this processor, else float32."""
    return torch.bfloat16 if bfloat16_slowdown() < 1 else torch.float32


@cache
def bfloat16_slowdown() -> float:
    """Return the time of a matrix product in bfloat16, divided by that in float32."""
    return _seconds(torch.bfloat16) / _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    matrix = torch.ones(SIZE, SIZE, dtype=dtype)
    times = []
    for _ in range(3):  # the first product also selects kernels
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - began)
    return min(times)

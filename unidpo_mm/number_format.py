"""Measure how fast this processor multiplies bfloat16 matrices.

Processors with bfloat16 instructions multiply it several times faster than float32. Others emulate
it up to fifty times slower, so that a run of minutes would take hours.
"""

import time
from functools import cache

import torch

__all__ = ["bfloat16_slowdown", "fastest_dtype"]

SIZE = 384
"""Rows and columns of the matrices."""
ROUNDS = 8
"""Products in each format. Even slow processors need less than half a second for all of them."""


@cache
def fastest_dtype() -> torch.dtype:
    """Return bfloat16 if its matrix products are faster on this processor, else float32."""
    return torch.bfloat16 if bfloat16_slowdown() < 1 else torch.float32


@cache
def bfloat16_slowdown() -> float:
    """Return the time of a matrix product in bfloat16, divided by that in float32.

    The two formats alternate and the fastest product of each counts, so that other processes on
    the same cores hardly affect the result.
    """
    bfloat16_matrix, float32_matrix = (
        torch.ones(SIZE, SIZE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    rounds = [(_seconds(bfloat16_matrix), _seconds(float32_matrix)) for _ in range(ROUNDS)]
    return min(bfloat16 for bfloat16, _ in rounds) / min(float32 for _, float32 in rounds)


def _seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - start

"""Batches for which memory does not suffice run in parts, in the same order."""

from collections.abc import Sequence

import pytest
import torch

from unidpo_mm.inference.memory import run_in_parts


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_is_halved_until_it_fits(error: type[Exception]):
    sizes: list[int] = []

    def double(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2 or 5 in items:
            raise error("full")
        return [2 * item for item in items]

    assert run_in_parts(double, range(7), lambda item: -item) == [0, 2, 4, 6, 8, -5, 12]
    assert sizes == [7, 3, 1, 2, 4, 2, 2, 1, 1]


def test_other_errors_are_raised():
    def fail(items: Sequence[int]) -> list[int]:
        raise ValueError(f"{len(items)} items")

    with pytest.raises(ValueError, match="4 items"):
        run_in_parts(fail, range(4), lambda item: item)

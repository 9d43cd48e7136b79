"""Run a batch in smaller parts when memory runs out."""

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

__all__ = ["run_in_parts"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_parts(
    run: Callable[[Sequence[Item]], list[Result]],
    items: Sequence[Item],
    failed: Callable[[Item], Result],
) -> list[Result]:
    """Run a batch; if memory runs out, run its halves, recursively.

    Args:
        run: Computes the results of a batch, in order.
        items: The batch.
        failed: Returns the result of an item for which memory does not even suffice alone.
    """
    try:
        return run(items)
    except (torch.OutOfMemoryError, MemoryError):
        pass  # the halves run outside of the handler, which keeps the tensors alive
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(items) == 1:
        return [failed(items[0])]
    half = len(items) // 2
    return [
        *run_in_parts(run, items[:half], failed),
        *run_in_parts(run, items[half:], failed),
    ]

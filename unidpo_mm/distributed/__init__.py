"""Communication between the processes of a run; the only caller of `torch.distributed`.

Every function here is collective: all processes call it, in the same order, or the run hangs. In a
run of one process each returns its argument and communicates nothing.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import UniDPOError

__all__ = [
    "barrier",
    "errors_shared",
    "first_process",
    "gather_entries",
    "gather_objects",
    "limit_waiting",
    "machines_first",
    "maximum",
    "partial_state_loading",
    "place_among_processes",
    "saves_for_machine",
    "sum_in_place",
    "true_everywhere",
]


Result = TypeVar("Result")

_limits: dict[str, timedelta] = {}
"""The limit that `limit_waiting` has set."""


def first_process(compute: Callable[[], Result]) -> Result:
    """Return the result of a function that only the first process calls, on every process.

    Raises:
        UniDPOError: On every process, if the function raises it.
    """
    if not _is_distributed():
        return compute()
    outcome: list[Any] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            outcome = [compute()]
        except UniDPOError as error:
            outcome = [error]
    torch.distributed.broadcast_object_list(outcome, group=_host_group())
    result: Result | UniDPOError = outcome[0]
    if isinstance(result, UniDPOError):
        raise result
    return result


def place_among_processes() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    if not _is_distributed():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def saves_for_machine() -> bool:
    """Return whether this process writes what all processes of a machine share."""
    if not _is_distributed():
        return True
    return torch.distributed.get_node_local_rank(fallback_rank=0) == 0


@contextlib.contextmanager
def machines_first() -> Iterator[None]:
    """Let one process of each machine run the body before the others do, which use its files."""
    first = saves_for_machine()
    if not first:
        barrier()
    try:
        yield
    finally:
        if first:
            barrier()


def true_everywhere(condition: bool) -> bool:
    """Return whether a condition holds on every process, without waiting for an accelerator."""
    return maximum([not condition]) == [0]


def maximum(values: Sequence[int]) -> list[int]:
    """Return the maximum of each value over all processes, without waiting for an accelerator.

    Args:
        values: The same number of values on every process.
    """
    if not _is_distributed():
        return list(values)
    result = torch.tensor(list(values))
    torch.distributed.all_reduce(result, op=torch.distributed.ReduceOp.MAX, group=_host_group())
    return [int(value) for value in result]


def sum_in_place(tensor: Tensor) -> None:
    """Replace a tensor by its sum over all processes."""
    if _is_distributed():
        torch.distributed.all_reduce(tensor)


def gather_objects(value: Any) -> list[Any]:
    """Return the value of every process, in the order of their ranks."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value, group=_host_group())
    return values


def gather_entries(entries: dict[str, Tensor]) -> Sequence[dict[str, Tensor]]:
    """Return the entries of every process on the process of each machine that writes them.

    The other processes of a machine get nothing. Tensors arrive in float32 on the CPU.
    """
    entries = {key: logps.float().cpu() for key, logps in entries.items()}
    if not _is_distributed():
        return [entries]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, entries)
    return gathered if torch.distributed.get_node_local_rank(fallback_rank=0) == 0 else []


def barrier() -> None:
    """Wait for all processes."""
    if _is_distributed():
        torch.distributed.barrier(group=_host_group())


@contextlib.contextmanager
def errors_shared() -> Iterator[None]:
    """Raise an error of any process on all of them, so that none waits for another forever.

    The body must not call anything collective after the point at which a process may fail alone.
    """
    error: UniDPOError | None = None
    try:
        yield
    except UniDPOError as caught:
        error = caught
    errors = [other for other in gather_objects(error) if other is not None]
    if errors:
        raise error or errors[0]


@contextlib.contextmanager
def partial_state_loading() -> Iterator[None]:
    """Let sharded checkpoints lack the optimizer state of weights that never got a gradient.

    torch refuses to load the state of the other weights otherwise.
    """
    from torch.distributed.checkpoint import default_planner

    original = default_planner.DefaultLoadPlanner
    planner = functools.partial(original, allow_partial_load=True)
    default_planner.DefaultLoadPlanner = planner  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        default_planner.DefaultLoadPlanner = original  # type: ignore[misc]


def limit_waiting(seconds: float) -> None:
    """Set how long a process waits for the others in the functions of this module.

    It is `ddp_timeout`, which the default group has from the beginning. One process may read data
    for longer than the 30 minutes after which other groups end a run.
    """
    _limits["host"] = timedelta(seconds=seconds)


def _host_group() -> Any:
    """Return a group that communicates through host memory; `None` for the default group."""
    if torch.distributed.get_backend() == "gloo":
        return None
    return _new_host_group(_limits.get("host"))


@cache
def _new_host_group(timeout: timedelta | None) -> Any:
    return torch.distributed.new_group(backend="gloo", timeout=timeout)


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

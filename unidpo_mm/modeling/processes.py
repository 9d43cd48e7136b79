"""What several processes agree on: each of them has to run the same modules in the same order."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import UniDPOError

__all__ = [
    "barrier",
    "entries_of_all",
    "errors_shared",
    "everywhere",
    "gather_objects",
    "largest_anywhere",
    "largest_on_host",
]


def everywhere(here: bool, device: torch.device) -> bool:
    """Whether something holds on every process; every process calls it."""
    if not _distributed():
        return here
    answer = torch.tensor(int(here), device=device)
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MIN)
    return bool(answer)


def largest_anywhere(here: int, device: torch.device) -> int:
    """Return the largest of a number of every process; every process calls it."""
    if not _distributed():
        return here
    answer = torch.tensor(here, device=device)
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
    return int(answer)


def largest_on_host(values: Sequence[int]) -> list[int]:
    """Return the largest of each value over all processes, without waiting for a device.

    Every process calls it with as many values.
    """
    if not _distributed():
        return list(values)
    answer = torch.tensor(list(values))
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX, group=_host_group())
    return [int(value) for value in answer]


def gather_objects(value: Any) -> list[Any]:
    """Return the value of every process, in the order of their ranks; every process calls it."""
    if not _distributed():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value, group=_host_group())
    return values


def barrier() -> None:
    """Wait until every process is here."""
    if _distributed():
        torch.distributed.barrier(group=_host_group())


@contextlib.contextmanager
def errors_shared() -> Iterator[None]:
    """Raise the error of any process on all of them, so that none waits for another forever.

    Every process enters and leaves it. The body must not call anything collective after the point
    at which a process may fail alone.
    """
    error: UniDPOError | None = None
    try:
        yield
    except UniDPOError as caught:
        error = caught
    errors = [other for other in gather_objects(error) if other is not None]
    if errors:
        raise error or errors[0]


def entries_of_all(entries: dict[str, Tensor]) -> Sequence[dict[str, Tensor]]:
    """Return the entries of all processes, for one process of each machine to write."""
    entries = {key: logps.float().cpu() for key, logps in entries.items()}
    if not _distributed():
        return [entries]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, entries)
    return gathered if torch.distributed.get_node_local_rank(fallback_rank=0) == 0 else []


@cache
def _host_group() -> Any:
    """Return a group that exchanges values between hosts' memories; None for the default group."""
    if torch.distributed.get_backend() == "gloo":
        return None
    return torch.distributed.new_group(backend="gloo")


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

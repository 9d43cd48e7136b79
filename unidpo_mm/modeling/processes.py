"""What several processes agree on: each of them has to run the same modules in the same order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["entries_of_all", "everywhere", "largest_anywhere"]


def everywhere(here: bool, device: torch.device) -> bool:
    """Whether something holds on every process; every process calls it."""
    if not _distributed():
        return here
    answer = torch.tensor(int(here), device=device)
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MIN)
    return bool(answer)


def largest_anywhere(here: int, device: torch.device) -> int:
    """Returns the largest of a number of every process; every process calls it."""
    if not _distributed():
        return here
    answer = torch.tensor(here, device=device)
    torch.distributed.all_reduce(answer, op=torch.distributed.ReduceOp.MAX)
    return int(answer)


def entries_of_all(entries: dict[str, Tensor]) -> Sequence[dict[str, Tensor]]:
    """Returns the entries of all processes, for one process of each machine to write."""
    entries = {key: logps.float().cpu() for key, logps in entries.items()}
    if not _distributed():
        return [entries]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, entries)
    return gathered if torch.distributed.get_node_local_rank(fallback_rank=0) == 0 else []


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

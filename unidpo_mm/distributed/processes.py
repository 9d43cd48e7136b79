"""The processes of a run that trains nothing, and the device of each."""

import torch
from accelerate import PartialState

__all__ = ["processes"]


def processes() -> PartialState:
    """Return the rank of this process, the number of processes, and the device.

    Without an accelerator, accelerate has to be told to use the CPU; otherwise it treats each of
    several processes as the only one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())

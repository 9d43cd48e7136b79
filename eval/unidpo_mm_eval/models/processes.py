"""The processes of a run, and the device of each."""

import torch
from accelerate import PartialState

__all__ = ["processes"]


def processes() -> PartialState:
    """Returns the number of this process, of how many, and its device.

    Without an accelerator it has to be told so: accelerate would else take each of several
    processes on a CPU for the only one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())

"""The functions of torch that call a CUDA driver, with the answers of a simulated device."""

import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

__all__ = ["driver_answers", "is_pinned", "pin_memory"]

GIB = 2**30
PINNED = "_simulated_pinned"
"""Attribute of CPU tensors in page-locked memory."""


def driver_answers(wait: Callable[[str], None]) -> Iterator[tuple[Any, str, Any]]:
    """Yield owner, name and replacement of each function that would ask the driver.

    Args:
        wait: Is called with a reason when the host would wait for the device.
    """
    properties = types.SimpleNamespace(
        name="simulated device",
        major=9,
        minor=0,
        total_memory=80 * GIB,
        multi_processor_count=132,
        warp_size=32,
    )
    answers: dict[str, Any] = {
        "_lazy_init": None,
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "is_bf16_supported": True,
        "get_device_capability": (9, 0),
        "get_device_properties": properties,
        "get_device_name": properties.name,
        "mem_get_info": (70 * GIB, 80 * GIB),
        "memory_reserved": 0,
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "manual_seed": None,
        "manual_seed_all": None,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
        "get_rng_state_all": [torch.zeros(16, dtype=torch.uint8)],
        "is_current_stream_capturing": False,
    }
    for name, value in answers.items():
        yield torch.cuda, name, _answer(value)
    if hasattr(torch._C, "_cuda_init"):
        yield torch._C, "_cuda_init", _answer(None)
    yield torch.cuda, "synchronize", lambda device=None: wait("synchronize")
    yield torch.cuda.amp.common, "amp_definitely_not_available", _answer(False)
    yield torch.Tensor, "pin_memory", pin_memory
    yield torch.Tensor, "is_pinned", is_pinned


def _answer(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def pin_memory(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    """Return a copy that counts as page-locked."""
    if is_pinned(tensor):
        return tensor
    copied = tensor.clone()
    setattr(copied, PINNED, True)
    return copied


def is_pinned(tensor: torch.Tensor, device: Any = None) -> bool:
    """Return whether a tensor counts as page-locked."""
    return getattr(tensor, PINNED, False)

"""Kernels that a forward pass would start on a GPU, counted as operations on the CPU."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unidpo_mm.kernels import branch_attention
from unidpo_mm.kernels.varlen import PLAIN, VarlenKernel

__all__ = ["Launches", "attention_calls_as_on_a_gpu", "launches_of"]

NO_LAUNCH = (
    *("view", "_unsafe_view", "t", "transpose", "permute", "expand", "slice", "select", "detach"),
    *("unsqueeze", "squeeze", "alias", "as_strided", "split", "split_with_sizes", "empty"),
    *("empty_like", "new_empty", "lift_fresh", "unbind"),
)
"""Operations that start no kernel on a GPU."""


class Launches(TorchDispatchMode):
    """A counter of the operations that would start a kernel on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    @property
    def total(self) -> int:
        """The number of kernels."""
        return self.counts.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in NO_LAUNCH:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def attention_calls_as_on_a_gpu(launches: Launches) -> Iterator[None]:
    """Compute attention in two calls, each counted as one launch, and as three backward."""

    def counted(run: Callable[..., Any], name: str, count: int) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            before = launches.counts.copy()
            result = run(*args)
            launches.counts = before + Counter({name: count})
            return result

        return call

    kernel = VarlenKernel(
        "counted", counted(PLAIN.forward, "varlen", 1), counted(PLAIN.backward, "varlen", 3)
    )
    with pytest.MonkeyPatch.context() as patch, launches:
        patch.setattr(branch_attention, "varlen_kernel", lambda *args: kernel)
        yield


@contextmanager
def launches_of(module: nn.Module, launches: Launches) -> Iterator[list[Counter[str]]]:
    """Yield a list to which each forward pass of a module adds its kernels."""
    forwards: list[Counter[str]] = []
    before: list[Counter[str]] = []
    hooks = [
        module.register_forward_pre_hook(lambda *_: before.append(launches.counts.copy())),
        module.register_forward_hook(lambda *_: forwards.append(launches.counts - before.pop())),
    ]
    yield forwards
    for hook in hooks:
        hook.remove()

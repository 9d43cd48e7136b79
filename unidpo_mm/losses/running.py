"""The running mean and standard deviation of a margin, which stateful losses keep for a run."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributed import sum_in_place

__all__ = ["MarginState"]


@dataclass
class MarginState:
    """Running mean of a margin and of its square, over all processes of a run."""

    mean: float | None = None
    square: float = 1.0

    @property
    def std(self) -> float:
        """The standard deviation; 1 before the first batch and if all margins are equal."""
        return max(self.square - (self.mean or 0.0) ** 2, 0.0) ** 0.5 or 1.0

    def update(self, margins: Tensor, momentum: float) -> None:
        """Add the finite margins of a micro-batch; the first one sets mean and deviation."""
        margins = margins[margins.isfinite()]  # a NaN would stay forever
        number = margins.new_tensor(float(len(margins)))
        sums = torch.stack([number, margins.sum(), margins.square().sum()])
        sum_in_place(sums)
        count, total, squares = sums.tolist()
        if not count:
            return
        kept = 0.0 if self.mean is None else momentum
        self.mean = kept * (self.mean or 0.0) + (1 - kept) * total / count
        self.square = kept * self.square + (1 - kept) * squares / count

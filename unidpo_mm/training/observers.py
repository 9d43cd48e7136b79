"""Observers see every micro-batch of training with its log-probs, weights and loss.

The metrics of the log and the checks for NaN are observers; `run.observers` and the argument
`observers` of `UniDPOTrainer` add others. An observer must not wait for the device (`.item()`,
`.cpu()`) in `on_step`, which would slow down every step: keep tensors, and read them at the end of
a step or later.
"""

from typing import Protocol

from ..records import GroupBatch
from .step import StepOutput

__all__ = ["Observer"]


class Observer(Protocol):
    """The interface of an observer, which is called with every micro-batch."""

    def on_step(self, batch: GroupBatch, output: StepOutput) -> None:
        """Look at a micro-batch after its forward pass, before its backward pass.

        Args:
            batch: The batch; `batch.pairs.ids` identifies its pairs.
            output: Log-probs of policy and reference, and the loss with its terms, such as `w_qual`
                and `w_perf`. Tensors may require gradients: detach what is kept.
        """
        ...

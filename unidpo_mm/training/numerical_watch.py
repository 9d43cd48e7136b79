"""Check loss, gradients and weights for NaN and infinity.

The loss of each micro-batch is checked on the device. The host reads one flag per optimizer step,
after the gradient norm is computed and before the optimizer changes a weight. So if something is
not finite, the weights are still those before the step, and the step can be replayed.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UniDPOError
from ..records import GroupBatch, Unit
from .step import StepOutput

__all__ = ["NonFiniteError", "NumericalWatch", "non_finite_weights"]


class NonFiniteError(UniDPOError):
    """A loss, gradient or weight that is NaN or infinite; that step did not change any weight."""

    headline = "training stopped"
    exit_code = 3


class NumericalWatch:
    """The finite-number checks of a run, for one optimizer step at a time.

    Attributes:
        batches: The micro-batches of the current step in this process, each with the loss [U] of
            its units.
        skipped: Number of steps skipped so far.
        consecutive_skips: Number of steps skipped since the last finite one.
        grad_norm: Gradient norm of the current step over all processes; `None` until it is
            computed.
        rng_state: State of the CPU random generator at the beginning of the step.
    """

    def __init__(self, unit: Unit, device: torch.device) -> None:
        self.unit = unit
        self.device = device
        self.batches: list[tuple[GroupBatch, Tensor]] = []
        self.skipped = 0
        self.consecutive_skips = 0
        self.grad_norm: Tensor | None = None
        self.rng_state = torch.get_rng_state()
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    def start_step(self) -> None:
        """Discard the data of the previous step."""
        self.batches.clear()
        self.grad_norm = None
        self.rng_state = torch.get_rng_state()
        self._finite = torch.ones_like(self._finite)

    def on_step(self, batch: GroupBatch, output: StepOutput) -> None:
        """Check the loss of a micro-batch, without waiting for the device."""
        self.batches.append((batch, output.loss.per_unit.detach()))
        self._finite = self._finite & torch.isfinite(output.loss_sum.detach())

    def set_grad_norm(self, grad_norm: Any) -> None:
        """Record the gradient norm of the step."""
        if hasattr(grad_norm, "full_tensor"):
            grad_norm = grad_norm.full_tensor()
        self.grad_norm = torch.as_tensor(grad_norm, device=self.device).detach()

    def is_finite(self, *, scaled: bool = False) -> bool:
        """Return whether loss and gradient of this process are finite; this waits for the device.

        Args:
            scaled: Whether a gradient scaler (fp16) handles infinite gradients by itself.
        """
        finite = self._finite
        if self.grad_norm is not None and not scaled:
            finite = finite & torch.isfinite(self.grad_norm)
        return bool(finite)

    def rows(self) -> tuple[list[str], list[str]]:
        """Return the rows whose loss is not finite, and all rows of the step in this process."""
        broken: dict[str, None] = {}
        counted: dict[str, None] = {}
        for batch, per_unit in self.batches:
            units = batch.units(self.unit)
            finite = torch.isfinite(per_unit).tolist()
            for row, is_finite, weight in zip(
                units.row_ids, finite, units.weight.tolist(), strict=True
            ):
                if weight > 0:
                    counted[row] = None
                    broken |= {} if is_finite else {row: None}
        return list(broken), list(counted)

    def describe(self) -> str | None:
        """Describe what is not finite in this process; `None` if everything is finite."""
        if not bool(self._finite):
            return "the loss is not finite"
        if self.grad_norm is not None and not bool(self.grad_norm.isfinite()):
            return f"the gradient is not finite (norm {float(self.grad_norm)})"
        return None


def non_finite_weights(model: nn.Module) -> list[str]:
    """Return the names of trainable weights with NaN or infinity; this waits for the device."""
    named = [(name, p.detach()) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        return []
    local = [getattr(tensor, "to_local", lambda t=tensor: t)() for _, tensor in named]
    flags = torch.stack([torch.isfinite(tensor).all() for tensor in local]).tolist()
    return [name for (name, _), finite in zip(named, flags, strict=True) if not finite]

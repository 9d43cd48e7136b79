"""Check that contenders do the same work: equal loss and gradient for equal pairs and weights."""

import torch
from contenders import Run
from torch import Tensor, nn

__all__ = ["Parity"]

TOLERANCE = 1e-4
"""Maximum difference of losses, and of gradients relative to their norm. Responses of 600 tokens
differ by 6e-5, probably because we sum log-probs in float64 and TRL in float32; short responses
differ by 4e-6."""

NOISE = 0.02
"""Standard deviation of the noise on trainable weights. Without it the policy equals the reference,
and the loss does not depend on the weights."""


class Parity:
    """A comparison of contenders with a baseline."""

    def __init__(self, baseline: Run) -> None:
        """Move the weights of the baseline away from its reference, and run it."""
        baseline.compute()  # a cached reference is computed from the initial weights
        generator = torch.Generator().manual_seed(0)
        self.weights = {
            name: weight + NOISE * torch.randn(weight.shape, generator=generator)
            for name, weight in trainable_weights(baseline.model).items()
        }
        self.loss, self.gradient = self._compute(baseline)

    def compare(self, run: Run) -> dict[str, float | str]:
        """Compare a contender with the same weights; after an epoch there is no gradient.

        Returns:
            Columns of the table.

        Raises:
            SystemExit: If loss or gradient differ.
        """
        run.compute()
        loss, gradient = self._compute(run)
        difference = abs(loss - self.loss)
        relative = relative_difference(gradient, self.gradient) if gradient else None
        if not max(difference, relative or 0) <= TOLERANCE:
            raise SystemExit(f"results differ: loss by {difference:.2g}, gradient by {relative}")
        return {
            "loss": loss,
            "loss_difference": f"{difference:.1e}",
            "gradient_difference": "" if relative is None else f"{relative:.1e}",
        }

    @torch.no_grad()
    def _set_weights(self, model: nn.Module) -> None:
        weights = trainable_weights(model)
        assert weights.keys() == self.weights.keys()
        for name, weight in weights.items():
            weight.copy_(self.weights[name])

    def _compute(self, run: Run) -> tuple[float, dict[str, Tensor]]:
        self._set_weights(run.model)
        loss = run.compute()
        parameters = run.model.named_parameters()
        return loss, {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def trainable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the trainable weights by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def relative_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Return |left - right| / |right| over all gradients."""
    assert left.keys() == right.keys()
    difference = sum(squares(left[name] - right[name]) for name in left)
    return (difference / sum(squares(gradient) for gradient in right.values())) ** 0.5


def squares(values: Tensor) -> float:
    """Return the sum of squares, in float64."""
    return float(values.square().sum(dtype=torch.float64))

"""Whether contenders do the same work: loss and gradient of the same pairs at the same weights."""

import torch
from contenders import Run
from torch import Tensor, nn

__all__ = ["Parity"]

TOLERANCE = 1e-4
"""Of losses, and of gradients relative to their norm. Answers of 600 tokens differ by 6e-5: ours
are added up in float64, TRL's in float32, which may be why. Short ones agree to 4e-6."""

NOISE = 0.02
"""Added to the weights that train: where policy and reference are equal, a loss says nothing."""


class Parity:
    """Holds contenders to one of them."""

    def __init__(self, yardstick: Run) -> None:
        """Move the weights of the yardstick away from its reference, and runs it."""
        yardstick.go()  # a cached reference is computed from the weights as they were
        generator = torch.Generator().manual_seed(0)
        self.weights = {
            name: weight + NOISE * torch.randn(weight.shape, generator=generator)
            for name, weight in trained(yardstick.model).items()
        }
        self.loss, self.gradient = self._ran(yardstick)

    def of(self, run: Run) -> dict[str, float | str]:
        """Gives a contender the same weights and compares; an epoch leaves no gradient.

        Returns:
            The columns of the table.

        Raises:
            SystemExit: If it does other work.
        """
        run.go()
        loss, gradient = self._ran(run)
        difference = abs(loss - self.loss)
        relative = relative_difference(gradient, self.gradient) if gradient else None
        if not max(difference, relative or 0) <= TOLERANCE:
            raise SystemExit(f"not the same work: loss {difference:.2g}, gradient {relative}")
        return {
            "loss": loss,
            "loss_difference": f"{difference:.1e}",
            "gradient_difference": "" if relative is None else f"{relative:.1e}",
        }

    @torch.no_grad()
    def _moved(self, model: nn.Module) -> None:
        weights = trained(model)
        assert weights.keys() == self.weights.keys()
        for name, weight in weights.items():
            weight.copy_(self.weights[name])

    def _ran(self, run: Run) -> tuple[float, dict[str, Tensor]]:
        self._moved(run.model)
        loss = run.go()
        found = run.model.named_parameters()
        return loss, {name: p.grad.clone() for name, p in found if p.grad is not None}


def trained(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that train, by name."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def relative_difference(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """Return |left - right| / |right| of all gradients taken together."""
    assert left.keys() == right.keys()
    apart = sum(squares(left[name] - right[name]) for name in left)
    return (apart / sum(squares(gradient) for gradient in right.values())) ** 0.5


def squares(values: Tensor) -> float:
    """Return the sum of squares, in float64."""
    return float(values.square().sum(dtype=torch.float64))

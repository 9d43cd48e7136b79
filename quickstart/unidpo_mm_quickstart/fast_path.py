"""What sharing saves on the rows of a run: one of its micro-batches in both layouts."""

import time
from dataclasses import asdict, dataclass

from unidpo_mm.data.collate import collate
from unidpo_mm.records import Layout
from unidpo_mm.training.trainer import UniDPOTrainer

__all__ = ["Saving", "measure_saving"]

ROWS = 6
"""Rows measured, from all over the data."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """One forward and backward pass over the same pairs in both layouts."""

    pairs: int
    plain_tokens: int
    shared_tokens: int
    plain_seconds: float
    shared_seconds: float

    def line(self) -> str:
        """Return the saving as a sentence."""
        return (
            "Fast path: prompt and images run once for both answers, so that a pass over "
            f"{self.pairs} pairs takes {self.shared_seconds:.1f} s instead of "
            f"{self.plain_seconds:.1f} s ({self.shared_tokens} tokens instead of "
            f"{self.plain_tokens})"
        )

    def figures(self) -> dict[str, float]:
        """Return the numbers by name."""
        return asdict(self)


def measure_saving(trainer: UniDPOTrainer) -> Saving | None:
    """Run a few pairs in both layouts; None where the run's is the plain one. No weight changes.

    The run's layout goes first, so that whatever is done but once counts against it.
    """
    if trainer.layout.layout == "plain":
        return None
    data = trainer.train_dataset
    groups = [data[number * len(data) // ROWS] for number in range(ROWS)]
    tokens: dict[Layout, int] = {}
    seconds: dict[Layout, float] = {}
    layouts: tuple[Layout, Layout] = (trainer.layout.layout, "plain")
    for layout in layouts:
        batch = collate(
            groups,
            pad_token_id=trainer.parts.adapter.pad_token_id,
            layout=layout,
            images_once=layout != "plain",
        )
        began = time.perf_counter()
        with trainer.accelerator.autocast():
            trainer.preference_step(trainer.model.train(), batch).loss_sum.backward()
        seconds[layout] = time.perf_counter() - began
        tokens[layout] = batch.token_inputs["input_ids"].numel()
        trainer.model.zero_grad()
    return Saving(
        pairs=sum(len(group.pairs) for group in groups),
        plain_tokens=tokens["plain"],
        shared_tokens=tokens[layouts[0]],
        plain_seconds=seconds["plain"],
        shared_seconds=seconds[layouts[0]],
    )

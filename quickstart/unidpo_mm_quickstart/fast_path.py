"""Measure how much time a run saves by processing shared prompts and images once."""

import time
from dataclasses import asdict, dataclass

from unidpo_mm.data.collate import collate
from unidpo_mm.records import Layout
from unidpo_mm.training.trainer import UniDPOTrainer

__all__ = ["Saving", "measure_saving"]

GROUPS = 6
"""Number of groups in the measured batch, evenly spaced in the data."""


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Tokens and seconds of a forward and backward pass over the same pairs in two layouts."""

    pairs: int
    plain_tokens: int
    shared_tokens: int
    plain_seconds: float
    shared_seconds: float

    def line(self) -> str:
        """Return the saving as a sentence."""
        return (
            "Fast path: prompt and images are processed once for both responses, so a pass over "
            f"{self.pairs} pairs takes {self.shared_seconds:.1f} s instead of "
            f"{self.plain_seconds:.1f} s ({self.shared_tokens} tokens instead of "
            f"{self.plain_tokens})"
        )

    def values(self) -> dict[str, float]:
        """Return the values by name."""
        return asdict(self)


def measure_saving(trainer: UniDPOTrainer) -> Saving | None:
    """Compare the trainer's layout with the plain one on a few pairs, without changing weights.

    The trainer's layout comes first, so one-time costs such as warming up the allocator count
    against it.

    Returns:
        The measurement; `None` if the trainer uses the plain layout.
    """
    if trainer.layout.layout == "plain":
        return None
    data = trainer.train_dataset
    groups = [data[number * len(data) // GROUPS] for number in range(GROUPS)]
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
        start = time.perf_counter()
        with trainer.accelerator.autocast():
            trainer.preference_step(trainer.model.train(), batch).loss_sum.backward()
        seconds[layout] = time.perf_counter() - start
        tokens[layout] = batch.inputs.tokens["input_ids"].numel()
        trainer.model.zero_grad()
    return Saving(
        pairs=sum(len(group.preferences.pairs) for group in groups),
        plain_tokens=tokens["plain"],
        shared_tokens=tokens[layouts[0]],
        plain_seconds=seconds["plain"],
        shared_seconds=seconds[layouts[0]],
    )

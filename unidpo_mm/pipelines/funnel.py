"""The funnel: what became of every prompt, response and pair, as counts whose sums are checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import counted

__all__ = ["ENTERED", "LEFT", "WITH_PAIRS", "Funnel"]

ENTERED: Mapping[str, str] = {"prompts": "read", "responses": "expected", "pairs": "formed"}
"""Subject of counts -> the name of its first count."""
LEFT: Mapping[str, str] = {"prompts": "used", "responses": "usable", "pairs": "kept"}
"""Subject of counts -> the name of its last count."""

WITH_PAIRS = "with pairs"
"""Name of the only outcome of a prompt that is not a loss."""


@dataclass
class Funnel:
    """Counts of prompts, responses and pairs.

    Attributes:
        counts: Subject -> name -> count, in the order of the stages.
    """

    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def count(self, subject: str, name: str, number: int) -> None:
        """Add a number to a count; zero creates no count except the first and the last."""
        if number or name in (ENTERED.get(subject), LEFT.get(subject)):
            counts = self.counts.setdefault(subject, {})
            counts[name] = counts.get(name, 0) + number

    def lost(self, subject: str) -> dict[str, int]:
        """Return the counts between the first and the last."""
        ends = (ENTERED[subject], LEFT[subject])
        counts = self.counts.get(subject, {})
        return {name: number for name, number in counts.items() if name not in ends}

    def largest_loss(self) -> str:
        """Return the largest loss of used prompts, responses and pairs, as text."""
        losses = [
            (number, f"{number:,} {subject} {name}")
            for subject in ("responses", "pairs")
            for name, number in self.lost(subject).items()
        ]
        losses += [
            (number, f"{number:,} prompts {name}")
            for name, number in self.counts.get("outcomes", {}).items()
            if name != WITH_PAIRS
        ]
        return max(losses)[1] if losses else "nothing was dropped"

    def sentence(self, subject: str) -> str:
        """Return the counts of a subject as one sentence."""
        counts = self.counts.get(subject, {})
        if subject not in ENTERED:
            return ", ".join(f"{number:,} {name}" for name, number in counts.items())
        first, last = ENTERED[subject], LEFT[subject]
        parts = [f"{counts.get(first, 0):,} {first}"]
        parts += [f"{number:,} {name}" for name, number in self.lost(subject).items()]
        return ", ".join([*parts, f"{counts.get(last, 0):,} {last}"])

    def check(self) -> None:
        """Raise an error unless what entered equals what was lost and what is left.

        Raises:
            AssertionError: If they differ, which is a mistake in this package.
        """
        for subject, counts in self.counts.items():
            if subject in ENTERED and LEFT[subject] in counts:
                total = sum(self.lost(subject).values()) + counts[LEFT[subject]]
                expected = counts.get(ENTERED[subject], 0)
                text = f"{subject}: {counted(expected, 'item')}, but {total:,} in the counts"
                assert total == expected, text

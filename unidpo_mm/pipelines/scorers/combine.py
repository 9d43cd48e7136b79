"""A weighted sum of other scores, each mapped from its declared scale to 0..1."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from typing_extensions import TypedDict

from ..scorer import Candidate, Fault, Need, Score, Scored, Scorer, ScoringContext

__all__ = ["SCORER", "Combine", "ScoreMap"]


class ScoreMap(TypedDict, total=False):
    """How a score without limits becomes a number from 0 to 1; one of the two."""

    logistic: float
    """Unit of the score in the logistic function: 1 for logits."""
    affine: tuple[float, float]
    """The scores that become 0 and 1; others beyond them are cut."""


@dataclass(frozen=True)
class Combine(Scorer):
    """A weighted sum of scores.

    Attributes:
        use: Name of a score -> its weight.
        maps: Name of a score without limits -> how it becomes a number from 0 to 1; it replaces
            the declared scale of other scores.
    """

    use: dict[str, float] = field(default_factory=dict)
    maps: dict[str, ScoreMap] = field(default_factory=dict)

    needs: ClassVar[frozenset[Need]] = frozenset({"scores"})

    def __post_init__(self) -> None:
        if not self.use:
            raise ValueError("use is empty: set it to names of scores with their weights")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.use.values()):
            raise ValueError("use: every weight must be a number above 0")
        for name, entry in self.maps.items():
            if len(entry) != 1:
                raise ValueError(f"maps: set either logistic or affine for '{name}'")
            low, high = entry.get("affine", (0.0, entry.get("logistic", 1.0)))
            if not low < high:
                raise ValueError(f"maps: the numbers for '{name}' must rise")

    @property
    def scale(self) -> tuple[float, float]:  # type: ignore[override] # depends on the weights
        """From 0 to the sum of the weights."""
        return 0.0, sum(self.use.values())

    def upstream(self) -> Sequence[str]:
        """Return the names of the scores."""
        return [*self.use]

    def check(self, scales: Mapping[str, tuple[float, float] | None]) -> Iterator[str]:
        """Yield what is missing: a map for each score without limits."""
        for name in self.use:
            if name not in self.maps and scales.get(name) is None:
                yield f"'{name}' has no limits, and maps.{name} is not set, such as logistic: 1.0"

    def start(self, context: ScoringContext) -> Callable[[Sequence[Candidate]], Sequence[Scored]]:
        """Return the function that combines scores on the scales of the run."""
        maps = {name: self._map(name, context.scales.get(name)) for name in self.use}

        def score(candidates: Sequence[Candidate]) -> Sequence[Scored]:
            return [self._combined(candidate, maps) for candidate in candidates]

        return score

    def _map(self, name: str, scale: tuple[float, float] | None) -> Callable[[float], float]:
        entry = self.maps.get(name, {})
        if "logistic" in entry:
            return functools.partial(_logistic, unit=entry["logistic"])
        return functools.partial(_affine, bounds=entry.get("affine") or scale or (0.0, 1.0))

    def _combined(
        self, candidate: Candidate, maps: Mapping[str, Callable[[float], float]]
    ) -> Scored:
        parts: dict[str, float] = {}
        for name in self.use:
            value = candidate.scores.get(name)
            if value is None:
                return Fault("incomplete", f"the response has no score '{name}'")
            parts[name] = maps[name](value)
        total = sum(self.use[name] * part for name, part in parts.items())
        return Score(min(total, self.scale[1]), {"parts": parts})


SCORER = Combine


def _logistic(value: float, *, unit: float) -> float:
    return 0.5 * (1 + math.tanh(value / unit / 2))  # does not overflow


def _affine(value: float, *, bounds: tuple[float, float]) -> float:
    low, high = bounds
    return min(max((value - low) / (high - low), 0.0), 1.0)

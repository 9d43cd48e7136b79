"""The speed of a run and its remaining time."""

import time

__all__ = ["Throughput"]


class Throughput:
    """A meter of units per second between logs, and of the time left at the average pace."""

    def __init__(self) -> None:
        self.units = 0.0
        self._began: float | None = None
        self._first_step = 0
        self._last = 0.0

    def start_step(self, step: int) -> None:
        """Record the beginning of a step; the first one starts the clock."""
        if self._began is None:
            self._began = self._last = time.perf_counter()
            self._first_step = step

    def count(self, units: float) -> None:
        """Add units, summed over all processes."""
        self.units += units

    def measure(self, step: int, max_steps: int, unit: str) -> dict[str, float]:
        """Return the pace since the last call and the seconds left, and reset the count."""
        if self._began is None:
            return {}
        now = time.perf_counter()
        pace = self.units / max(now - self._last, 1e-9)
        self.units, self._last = 0.0, now
        done = step - self._first_step
        left = (now - self._began) / done * (max_steps - step) if done > 0 else 0.0
        return {f"{unit}s_per_second": round(pace, 3), "seconds_left": round(left, 1)}

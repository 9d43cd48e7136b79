"""Show the progress of a command in stages, with the time left for all of them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

__all__ = ["Timeline"]

RELIABLE = 0.03
"""Fraction of the work after which the speed of this machine is estimated from it."""
CACHED = 0.2
"""A stage that takes less than this fraction of its usual time was cached, and says nothing about
the speed of this machine."""


class Timeline:
    """The stages of a command and the time that they need.

    A terminal has a bar for the whole command. Other outputs get a line when a stage begins.

    Args:
        stages: Stage -> its usual number of seconds. Only their ratios count once a part of the
            work is done, because the speed of the machine is known then.
        console: The console to print to.
    """

    def __init__(self, stages: Mapping[str, float], console: Console) -> None:
        self.seconds: dict[str, float] = {}
        self._stages, self._console = dict(stages), console
        self._finished = 0.0  # usual seconds of the finished stages
        self._measured = self._elapsed = 0.0  # usual and real seconds of those that were not cached
        self._start = time.perf_counter()  # of the present stage
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:.0f} %  {task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=self.total, left="")

    @property
    def total(self) -> float:
        """The usual number of seconds of all stages."""
        return sum(self._stages.values())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage; its name is one of `stages`."""
        self._start = time.perf_counter()
        number = f"{list(self._stages).index(name) + 1}/{len(self._stages)}"
        if not self._console.is_terminal:
            self._console.print(f"[{number}] {name} ({self.left(0)})", markup=False)
        self._bar.start()
        self._bar.update(self._task, description=f"{number} {name}")
        self.advance(name, 0)
        try:
            yield
        finally:
            self._bar.stop()
        usual, seconds = self._stages[name], time.perf_counter() - self._start
        self._finished += usual
        self.seconds[name] = seconds
        if seconds >= CACHED * usual:
            self._measured += usual
            self._elapsed += seconds
        self._start += seconds
        if self._console.is_terminal:
            self._console.print(f"{number} {name}: {self.seconds[name]:.0f} s", markup=False)

    def advance(self, name: str, fraction: float) -> None:
        """Report that a fraction of the present stage is done."""
        done = fraction * self._stages[name]
        self._bar.update(self._task, completed=self._finished + done, left=self.left(done))

    def left(self, done: float) -> str:
        """Return the time left as text, if `done` usual seconds of the present stage are done."""
        measured = self._measured + done
        elapsed = self._elapsed + time.perf_counter() - self._start
        pace = elapsed / measured if measured > RELIABLE * self.total else 1.0
        seconds = round(pace * (self.total - self._finished - done))
        return f"about {seconds // 60}:{seconds % 60:02d} left"

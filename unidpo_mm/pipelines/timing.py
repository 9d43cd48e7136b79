"""How long the stages take: measured in a run, stored next to its files, and used by `--plan`."""

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..atomic import write_text

__all__ = ["StageTime", "Stopwatch", "Timing", "duration"]


@dataclass
class StageTime:
    """The time of a stage, over all runs that worked on it.

    Attributes:
        loading: Seconds until the first item, such as those of loading a model; of the last run.
        seconds: Seconds of the work on items.
        items: Number of items of this process: responses, or prompts for the stages of prompts.
    """

    loading: float = 0.0
    seconds: float = 0.0
    items: int = 0

    def expected(self, items: int, processes: int = 1) -> float:
        """Return the seconds that a number of items take in several processes."""
        return self.loading + self.seconds / max(self.items, 1) * items / processes


class Stopwatch:
    """Measures one stage of one run."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first: tuple[float, int] | None = None
        self.time = StageTime()

    def loaded(self) -> None:
        """State that everything is loaded, and the work begins now."""
        now = time.perf_counter()
        self.time.loading += now - self._start
        self._start = now

    def add(self, items: int) -> None:
        """State that a number of items is finished now."""
        self.time.items += items
        self.time.seconds = time.perf_counter() - self._start
        if self._first is None:
            self._first = self.time.seconds, items

    def result(self) -> StageTime:
        """Return the time; what the first batch took longer than others counts as loading."""
        if self._first is None or self._first[1] == self.time.items:
            return self.time
        seconds, items = self._first
        rate = (self.time.seconds - seconds) / (self.time.items - items)
        excess = max(seconds - rate * items, 0.0)
        return StageTime(self.time.loading + excess, self.time.seconds - excess, self.time.items)


class Timing:
    """The times of all stages, in a small file.

    Args:
        path: The file; earlier times are read from it.
        processes: Number of processes that share the work.
        saves: Whether this process writes the file.

    Attributes:
        stages: Name of a stage or score -> its time.
        processes: Number of processes that share the work.
    """

    def __init__(self, path: Path, *, processes: int = 1, saves: bool = True) -> None:
        self.path, self.saves = path, saves
        record = _read(path)
        self.processes = processes
        self.stages = {name: StageTime(**entry) for name, entry in record.get("stages", {}).items()}

    @classmethod
    def of(cls, path: Path) -> "Timing | None":
        """Return the times that a run has stored; `None` if there are none."""
        record = _read(path)
        return cls(path, processes=record["processes"], saves=False) if record else None

    @contextlib.contextmanager
    def stage(self, name: str, *, repeated: bool = False) -> Iterator[Stopwatch]:
        """Measure a stage, also if it is interrupted.

        Args:
            name: Its name.
            repeated: Whether every run repeats it, so that earlier times are replaced.
        """
        watch = Stopwatch()
        try:
            yield watch
        finally:
            if watch.time.items:
                self._add(name, watch.result(), StageTime() if repeated else self.stages.get(name))

    def _add(self, name: str, new: StageTime, old: StageTime | None) -> None:
        old = old or StageTime()
        self.stages[name] = StageTime(new.loading, old.seconds + new.seconds, old.items + new.items)
        if self.saves:
            write_text(self.path, json.dumps(self.record(), indent=2) + "\n")

    def record(self) -> dict[str, Any]:
        """Return all times as JSON values."""
        stages = {
            name: {key: round(value, 4) for key, value in asdict(stage).items()}
            for name, stage in self.stages.items()
        }
        return {"processes": self.processes, "stages": stages}


def duration(seconds: float) -> str:
    """Return seconds as text with two units at most, such as ``2 min 5 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _read(path: Path) -> Mapping[str, Any]:
    """Return the stored times; nothing if the file is missing or damaged, as it can be renewed."""
    try:
        record: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for entry in record["stages"].values():
            StageTime(**entry)
        return record if isinstance(record["processes"], int) else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}

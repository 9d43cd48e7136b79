"""The files of a data set in the making, and the share of a process in writing them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..inference.store import ResponseStore
from .recipe import SampleSection
from .timing import Stopwatch

__all__ = [
    "Files",
    "ResponseFile",
    "ScoreFile",
    "Share",
    "given_id",
    "sampled_id",
    "sampling_settings",
]

Item = TypeVar("Item")

PILOT = "pilot-"
"""Beginning of the name of the directory of a pilot; its number of prompts follows."""


def sampled_id(prompt: str, number: int) -> str:
    """Return the id of a sampled response."""
    return f"{prompt}#{number}"


def given_id(prompt: str, number: int) -> str:
    """Return the id of a response of a source."""
    return f"{prompt}#given-{number}"


@dataclass(frozen=True)
class Files:
    """Paths of everything that is written.

    Attributes:
        directory: The directory of the recipe's `output`.
    """

    directory: Path

    @classmethod
    def of(cls, directory: Path, pilot: int | None = None) -> "Files":
        """Return the files of a run, or of a pilot with a number of prompts, inside of its own."""
        return cls(directory if pilot is None else directory / f"{PILOT}{pilot}")

    @classmethod
    def pilots(cls, directory: Path) -> "list[Files]":
        """Return the files of all pilots, that with the most prompts first."""
        sizes = [
            int(path.name.removeprefix(PILOT))
            for path in directory.glob(f"{PILOT}*")
            if path.name.removeprefix(PILOT).isdecimal()
        ]
        return [cls.of(directory, size) for size in sorted(sizes, reverse=True)]

    @property
    def prompts(self) -> Path:
        """The prompts."""
        return self.directory / "prompts.jsonl"

    @property
    def responses(self) -> Path:
        """The responses, each with an id."""
        return self.directory / "responses.jsonl"

    @property
    def rows(self) -> Path:
        """The rows to train on."""
        return self.directory / "rows.jsonl"

    @property
    def record(self) -> Path:
        """The record of models, settings and counts."""
        return self.directory / "made.json"

    @property
    def page(self) -> Path:
        """The same to look at."""
        return self.directory / "made.html"

    @property
    def timing(self) -> Path:
        """How long each stage took."""
        return self.directory / "timing.json"

    @property
    def leaks(self) -> Path:
        """The leaks that were removed or reported."""
        return self.directory / "leaks.jsonl"

    def scores(self, name: str, group: int | None = None) -> Path:
        """Return the file of a score.

        Args:
            name: The name of the score.
            group: Number of responses per prompt if the score depends on it.
        """
        file = name if group is None else f"{name}-of-{group}"
        return self.directory / "scores" / f"{file}.jsonl"

    def scratch(self, name: str) -> Path:
        """Return a directory for files of a scorer, such as cached replies."""
        return self.directory / "scores" / f"{name}.cache"


@dataclass(frozen=True)
class Share:
    """The share of a process: every `count`-th batch, starting with number `index`.

    Attributes:
        index: From 0.
        count: Number of shares of all processes on all machines.
        merges: Whether the batches of all processes are merged at the end of a stage.
        works: Whether missing batches are computed; otherwise they are only merged.
    """

    index: int = 0
    count: int = 1
    merges: bool = True
    works: bool = True

    @classmethod
    def of_processes(cls, number: int = 1, of: int = 1, *, merge: bool = False) -> "Share":
        """Return the share of this process.

        Args:
            number: Number of the share of this run, which may be on one of several machines.
            of: Number of these shares.
            merge: Whether this run only merges the batches of all shares.
        """
        from ..distributed.processes import processes  # imports torch

        state = processes()
        index = (number - 1) * state.num_processes + state.process_index
        return cls(index, of * state.num_processes, merges=of == 1, works=not merge)

    def of(self, batches: Sequence[Item]) -> list[Item]:
        """Return the batches of this share."""
        return list(batches[self.index :: self.count]) if self.works else []


RESUME = "Run the command again to resume; after runs with --share, run the shares that are missing"

START_OVER = "Use the same settings or another output, or delete the file to start over"


class TimedStore(ResponseStore):
    """A store whose stage is measured while it is written.

    Attributes:
        stopwatch: Measures the stage; `None` for no measurement.
    """

    stopwatch: Stopwatch | None = None

    def merge(self, ids: Sequence[str]) -> None:
        """Write the final file, in which the records of a larger `n` before stay, at its end."""
        current = set(ids)
        super().merge([*ids, *(name for name in self.done if name not in current)])

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records, and count them for the time of the stage."""
        super().add(records)
        if self.stopwatch is not None:
            self.stopwatch.add(len(records))

    def loaded(self) -> None:
        """State that everything is loaded and the work begins."""
        if self.stopwatch is not None:
            self.stopwatch.loaded()


class ResponseFile(TimedStore):
    """The responses of a data set in the making."""

    noun = "response"
    resume, start_over = RESUME, START_OVER
    hashes: Mapping[str, str] = {"prompts": "other prompts or another order of them"}
    unstable = frozenset({"n", "batch_size", "versions", "server"})


class ScoreFile(TimedStore):
    """The scores of one scorer."""

    noun = "score"
    resume, start_over = RESUME, START_OVER
    hashes: Mapping[str, str] = {"responses": "other prompts or responses"}
    unstable = frozenset({"n", "versions"})


def sampling_settings(sample: SampleSection) -> dict[str, Any]:
    """Return the settings that determine how a response is sampled, as JSON values."""
    names = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens", "stop", "seed")
    return {name: json_values(getattr(sample, name)) for name in names}


def json_values(value: Any) -> Any:
    """Return a value as JSON has it: tuples as lists, sets sorted, paths as text."""
    if isinstance(value, dict):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(json_values, value))
    if isinstance(value, list | tuple):
        return [*map(json_values, value)]
    return str(value) if isinstance(value, Path) else value

"""Exchange of files with other tools, one module per tool; no tool is ever imported.

A new module that exports `BRIDGE` is a new bridge of that name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.plugins import load, plugin_names

from ..data.samples import Prediction
from ..plugins import BRIDGES

__all__ = ["Bridge", "ExportJob", "ImportedResponse", "bridge_names", "load_bridge"]


@dataclass(frozen=True, kw_only=True)
class ExportJob:
    """The input of an export."""

    model: str  # Name of the model
    records: Sequence[Mapping[str, Any]]  # The rows of the data in the order of their file
    ids: Sequence[str]  # Their ids
    responses: Mapping[str, str]  # Id -> response
    output: Path  # The file to write
    task: str = ""  # The tool's name of the benchmark

    def missing(self, *, allow_empty: bool = True) -> list[Problem]:
        """Return a problem if rows have no prediction, which most tools cannot handle."""
        missing = [
            row_id
            for row_id in self.ids
            if row_id not in self.responses or not (allow_empty or self.responses[row_id].strip())
        ]
        if not missing:
            return []
        text = f"{len(missing)} rows have no prediction, the first of them '{missing[0]}'"
        return [Problem("--predictions", text, "Use predictions for every row")]


@dataclass(frozen=True, kw_only=True)
class ImportedResponse:
    """A response from a file of another tool."""

    prediction: Prediction  # The response; its id is a row number if `by_row`
    by_row: bool = False  # The tool records only row numbers, from 0
    question: str = ""  # The prompt or question that the tool logged
    target: str = ""  # The correct answer that the tool logged


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """The import and export of files of one tool."""

    name: str  # Name of its module
    title: str  # Name of the tool
    # Suffixes of the files that it writes; the first is the default
    endings: tuple[str, ...] = ()
    # Writes a file and returns notes; `None` if there is no export
    export: Callable[[ExportJob], Sequence[str]] | None = None
    # Reads a file of the tool; `None` if there is no import
    read: Callable[[Path], Sequence[ImportedResponse]] | None = None
    of_data: bool = False  # The export contains the data; predictions are optional
    # The tool judges responses and counts their length: reasoning is removed
    answers_only: bool = False


def raise_if(problems: Sequence[Problem]) -> None:
    """Raise all problems, if any."""
    if problems:
        raise DataError(problems)


def bridge_names() -> tuple[str, ...]:
    """Return the names of all bridges, without importing any of them."""
    return tuple(plugin_names(BRIDGES))


def load_bridge(name: str) -> Bridge:
    """Load a bridge."""
    bridge: Bridge = load(BRIDGES, name)
    return bridge

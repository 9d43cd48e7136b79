"""Exchange of files with other tools: one file each, none of them is ever imported.

A new file here that exports BRIDGE is a new bridge; its name is the bridge's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.samples import Prediction
from ..discovery import load_module, module_names

__all__ = ["Asked", "Bridge", "Imported", "bridge_names", "load_bridge"]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an export is made of.

    Attributes:
        model: What the model is called.
        records: The rows of the data, as they are in the file, in its order.
        ids: Their ids.
        responses: Id -> response.
        out: The file to write.
        task: What the tool calls the benchmark.
    """

    model: str
    records: Sequence[Mapping[str, Any]]
    ids: Sequence[str]
    responses: Mapping[str, str]
    out: Path
    task: str = ""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """A response that a tool wrote down.

    Attributes:
        prediction: The response; its id is the number of a row where `by_row`.
        by_row: The tool names no id, only the number of a row, from 0.
        question: What it logged of the question: the prompt, or the document's question.
        target: What it logged as right.
    """

    prediction: Prediction
    by_row: bool = False
    question: str = ""
    target: str = ""


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """How files are exchanged with one tool.

    Attributes:
        name: That of its file.
        title: As people call it.
        endings: Of the files that it writes; the first is the usual one.
        export: Writes a file; None where there is nothing to write. Returns what should be known.
        read: Reads a file of the tool; None where there is nothing to read.
        of_data: What is written are the data; predictions are not needed.
        answers_only: The tool judges what it reads and counts its length: reasoning is removed.
    """

    name: str
    title: str
    endings: tuple[str, ...] = ()
    export: Callable[[Asked], Sequence[str]] | None = None
    read: Callable[[Path], Sequence[Imported]] | None = None
    of_data: bool = False
    answers_only: bool = False


def bridge_names() -> tuple[str, ...]:
    """Returns the names of all bridges, without importing any of them."""
    return module_names(__name__)


def load_bridge(name: str) -> Bridge:
    """Returns the bridge of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    found: Bridge = load_module(__name__, name, "BRIDGE", "TOOL")
    return found

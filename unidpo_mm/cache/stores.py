"""Descriptions of stores on disk: reference log-probs, image features, rows and others."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["PART", "Action", "StoreCheck", "StoreInfo", "replacing"]

Kind = Literal["references", "features", "rows", "data", "questions"]
Action = Literal["intact", "repaired", "removed", "moved", "damaged", "unchanged"]
PART = ".part"
"""Suffix of a file that is being written."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that becomes `path`, so that a killed process leaves none incomplete.

    After an error it is removed.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=PART)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """The content of a store.

    Attributes:
        path: Its file or directory.
        kind: What it stores: ``references`` has an entry per response, ``features`` per prompt,
            ``rows`` and ``data`` per row, ``questions`` per question.
        entries: Number of entries; None if the store cannot be read.
        size: Size on disk in bytes.
        used: Time of the last use in seconds since the epoch.
        model: Model of a reference, as the recipe names it.
        settings: Number formats, kernels and versions of a reference.
    """

    path: Path
    kind: Kind
    entries: int | None
    size: int
    used: float
    model: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StoreCheck:
    """The result of verifying a store.

    Attributes:
        path: Its file or directory.
        kind: What it stores.
        intact: Number of intact entries; None if unknown.
        damaged: Number of damaged entries; None if unknown.
        action: ``intact``; ``repaired``, ``removed`` or ``moved`` (to a name with the suffix
            ``.damaged``) if it was damaged; ``damaged`` in a dry run; ``unchanged`` if the store is
            in use or may not be written.
        reason: What is wrong; empty if only entries are damaged, or nothing.
    """

    path: Path
    kind: Kind
    intact: int | None = None
    damaged: int | None = None
    action: Action
    reason: str = ""

"""Hashes of questions on disk: one file per source of questions, replaced as a whole."""

import contextlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from .directory import cache_directory
from .stores import StoreCheck, StoreInfo, replacing

__all__ = [
    "COUNTED",
    "list_questions",
    "question_path",
    "read_questions",
    "verify_questions",
    "write_questions",
]

logger = logging.getLogger(__name__)

SUFFIX = ".npz"

COUNTED = "stems"
"""The array that has a value for each question."""

TEXTS = "json"
"""The array with the bytes of a JSON value."""

DAMAGE = (ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""Errors of a damaged file; ZIP files have checksums of their content."""


def question_path(key: str, cache: Path | None = None) -> Path:
    """Return the file of a source of questions."""
    return _folder(cache) / f"{key}{SUFFIX}"


def read_questions(path: Path) -> tuple[dict[str, NDArray[Any]], Any] | None:
    """Return the arrays and the JSON value in a file; `None` if it is missing or damaged."""
    try:
        content = _read(path)
    except FileNotFoundError:
        return None
    except (OSError, *DAMAGE) as error:
        logger.warning("%s cannot be read and is written again: %s", path, error)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # `unidpo-mm cache prune` uses the time of the last use
    return content


def write_questions(path: Path, arrays: Mapping[str, NDArray[Any]], texts: Any) -> None:
    """Replace a file; a failure is logged, because the hashes can be computed again.

    Args:
        path: The file.
        arrays: Its arrays by name, among them `COUNTED`.
        texts: A value of JSON.
    """
    encoded = numpy.frombuffer(json.dumps(texts).encode("ascii"), dtype=numpy.uint8)
    content: dict[str, Any] = {**arrays, TEXTS: encoded}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            numpy.savez(file, **content)
    except OSError as error:
        logger.warning("hashes of questions are not saved; the next start reads them: %s", error)


def list_questions(cache: Path | None = None) -> list[StoreInfo]:
    """Return every file of a cache directory; None for the default one."""
    stores = []
    for path in sorted(_folder(cache).glob(f"*{SUFFIX}")):
        try:
            with numpy.load(path, allow_pickle=False) as file:
                entries = len(file[COUNTED])
        except (OSError, *DAMAGE):
            entries = None
        size, used = path.stat().st_size, path.stat().st_mtime
        stores.append(StoreInfo(path=path, kind="questions", entries=entries, size=size, used=used))
    return stores


def verify_questions(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Read every file and remove damaged ones."""
    for path in sorted(_folder(cache).glob(f"*{SUFFIX}")):
        try:
            intact, reason = len(_read(path)[0][COUNTED]), ""
        except (OSError, *DAMAGE) as error:
            intact, reason = 0, str(error)
            if not dry_run:
                path.unlink(missing_ok=True)
        yield StoreCheck(
            path=path,
            kind="questions",
            intact=intact,
            damaged=None if reason else 0,
            action="intact" if not reason else "damaged" if dry_run else "removed",
            reason=reason,
        )


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], Any]:
    with numpy.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads(arrays.pop(TEXTS).tobytes())


def _folder(cache: Path | None) -> Path:
    return cache_directory(cache) / "questions"

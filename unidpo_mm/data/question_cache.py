"""Hashes of questions that are computed once for unchanged files, and read from the cache then."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..cache.keys import file_digest
from ..cache.question_store import question_path, read_questions, write_questions
from .code_digest import package_digest
from .content import NO_STAMP, stamp
from .questions import Question, QuestionHashes, TextRule, hash_questions

__all__ = ["cached_hashes", "files_digest"]

TEXTS = ("where", "text", "unreadable", "files")
"""Fields of `QuestionHashes` that are not arrays."""


def files_digest(paths: Iterable[Path], settings: Any = None) -> str:
    """Return a digest of files and of what determines how they are read, such as options.

    Args:
        paths: Files, which count by their content, and directories, of whose files path, size and
            times count, because they may be many images.
        settings: Another value of JSON.

    Raises:
        OSError: If a file cannot be read.
    """
    content = [[str(path), _digest(path)] for path in sorted(paths)]
    text = json.dumps([content, settings, str(Path.cwd()), package_digest()])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def cached_hashes(
    key: str,
    questions: Callable[[], Iterable[Question]],
    text: TextRule = "exact",
    *,
    cache: Path | None = None,
) -> QuestionHashes:
    """Return the hashes of questions, from the cache if they and their images have not changed.

    Args:
        key: The `files_digest` of the questions.
        questions: Returns the questions; it is called if the cache does not have them.
        text: Whether 13-grams are hashed, too.
        cache: Cache directory; `None` for the default one.
    """
    path = question_path(f"{key}-{text}", cache)
    stored = read_questions(path)
    hashes = None if stored is None else _restored(*stored)
    if hashes is not None and _is_current(hashes):
        return hashes
    hashes = hash_questions(questions(), text)
    if NO_STAMP not in hashes.files.values():  # otherwise the next start would not use it
        arrays = {
            column.name: getattr(hashes, column.name)
            for column in fields(QuestionHashes)
            if column.name not in TEXTS
        }
        texts = {name: getattr(hashes, name) for name in TEXTS}
        write_questions(path, arrays, texts)
    return hashes


def _restored(arrays: dict[str, Any], texts: Any) -> QuestionHashes | None:
    """Return stored hashes; `None` if a field is missing or of another type."""
    try:
        return QuestionHashes(
            **arrays,
            where=tuple(texts["where"]),
            text=texts["text"],
            unreadable=tuple(texts["unreadable"]),
            files={path: tuple(value) for path, value in texts["files"].items()},
        )
    except (KeyError, TypeError, AttributeError):
        return None


def _is_current(hashes: QuestionHashes) -> bool:
    """Return whether the files of images are the same as when they were hashed."""
    return all(stamp(path) == value for path, value in hashes.files.items())


def _digest(path: Path) -> Any:
    if not path.is_dir():
        return file_digest(path)
    return [[str(file), _file_state(file)] for file in sorted(path.rglob("*")) if file.is_file()]


def _file_state(file: Path) -> Any:
    """Return size and times of a file, or its digest if it was changed just now."""
    state = stamp(file)
    return file_digest(file) if state == NO_STAMP else state

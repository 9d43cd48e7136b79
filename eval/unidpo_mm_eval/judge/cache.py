"""Answers of a judge, kept in one file of SQLite by a hash of the whole request."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError

__all__ = ["AnswerCache"]


class AnswerCache:
    """Answers by request.

    Args:
        path: The file; its folder is made.

    Raises:
        RecipeError: If the file is none of answers.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.file = sqlite3.connect(path, check_same_thread=False)
        try:
            self.file.execute("PRAGMA schema_version")
        except sqlite3.DatabaseError as error:
            found = f"it is no file of answers ({error})"
            raise RecipeError(Problem(str(path), found, "Name another file")) from error
        with self.lock, self.file:
            self.file.execute(
                "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT)"
            )

    def get(self, request: Mapping[str, Any]) -> str | None:
        """Returns the answer to a request, None where it was not asked."""
        with self.lock:
            found = self.file.execute(
                "SELECT answer FROM answers WHERE request = ?", (_key(request),)
            ).fetchone()
        return None if found is None else str(found[0])

    def put(self, request: Mapping[str, Any], answer: str) -> None:
        """Keeps an answer."""
        with self.lock, self.file:
            self.file.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?)", (_key(request), answer)
            )


def _key(request: Mapping[str, Any]) -> str:
    whole = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(whole.encode()).hexdigest()

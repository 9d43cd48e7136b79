"""A judge's replies in a SQLite file, by a hash of the complete request."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError


class ReplyCache:
    """Replies by request."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.file = sqlite3.connect(path, check_same_thread=False)
        create = "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT)"
        try:
            with self.lock, self.file:
                self.file.execute(create)
        except sqlite3.DatabaseError as error:
            text = f"the file is not a cache of replies ({error})"
            raise RecipeError(Problem(str(path), text, "Use another file")) from error

    def get(self, request: Mapping[str, Any]) -> str | None:
        """Return the reply to a request; `None` for a new one."""
        query = "SELECT answer FROM answers WHERE request = ?"
        with self.lock:
            row = self.file.execute(query, (_key(request),)).fetchone()
        return None if row is None else str(row[0])

    def put(self, request: Mapping[str, Any], reply: str) -> None:
        """Store a reply."""
        query = "INSERT OR REPLACE INTO answers VALUES (?, ?)"
        with self.lock, self.file:
            self.file.execute(query, (_key(request), reply))


def _key(request: Mapping[str, Any]) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

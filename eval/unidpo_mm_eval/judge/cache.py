"""A judge's replies in a SQLite file, by a hash of the complete request."""

import hashlib
import json
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError


class ReplyCache:
    """Replies by request.

    Args:
        path: The file, which is created with its directory.

    Raises:
        RecipeError: If the file is not such a cache.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self._pending: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
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

    def reply(self, request: Mapping[str, Any], ask: Callable[[], str]) -> str:
        """Return the stored reply to a request, or ask for it and store it.

        Equal requests of several threads are made once.
        """
        with self.lock:
            pending = self._pending[_key(request)]
        with pending:
            reply = self.get(request)
            if reply is None:
                reply = ask()
                self.put(request, reply)
        return reply


def _key(request: Mapping[str, Any]) -> str:
    text = json.dumps(request, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

"""Write the tables of docs/migrating.md from the tables of the frameworks.

Run ``python -m unidpo_mm.migrate.page docs/migrating.md``.
"""

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from ..config.page import updated_page as replace_tables
from . import trainer_arguments
from .migration import FRAMEWORKS
from .table import UNSET, Key

__all__ = ["updated_page"]


def updated_page(page: str) -> str:
    """Return the page with its tables replaced by those of the code.

    Raises:
        ValueError: If the page lacks the comments of one of the tables.
    """
    tables = {item.title: item.keys for item in FRAMEWORKS} | {"Trainer": trainer_arguments.KEYS}
    return replace_tables(page, {title: _lines(keys) for title, keys in tables.items()})


def _lines(keys: Mapping[str, Key]) -> list[str]:
    """Return one row per key; keys that are not migrated for the same reason share a row."""
    rows = ["| key | default | key in a recipe | notes |", "| --- | --- | --- | --- |"]
    for _, group in groupby(keys.items(), key=lambda item: item[0] if item[1].target else item[1]):
        members = list(group)
        key = members[0][1]
        names = ", ".join(f"`{name}`" for name, _ in members)
        target = f"`{key.target}`" if key.target else ""
        rows.append(
            f"| {names} | {_as_code(key.default)} | {target} | {key.note or key.docs_note} |"
        )
    return rows


def _as_code(default: Any) -> str:
    if default is UNSET:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`[{', '.join(default)}]`" if isinstance(default, list) else f"`{default}`"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated_page(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Write the tables of docs/migrating.md from the tables of the frameworks.

Run ``python -m unidpo_mm.migrate.page docs/migrating.md``.
"""

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from . import trainer_arguments
from .migration import FRAMEWORKS
from .table import UNSET, Key

__all__ = ["updated_page"]

HEAD = "| key | default | key in a recipe | notes |\n| --- | --- | --- | --- |"


def updated_page(page: str) -> str:
    """Return the page with its tables replaced by those of the code.

    Raises:
        ValueError: If the page has no place for one of the tables.
    """
    tables = {item.title: item.keys for item in FRAMEWORKS} | {"Trainer": trainer_arguments.KEYS}
    for title, keys in tables.items():
        start, end = f"<!-- table: {title} -->\n", f"\n<!-- /table: {title} -->"
        before, opening, rest = page.partition(start)
        _, closing, after = rest.partition(end)
        if not opening or not closing:
            raise ValueError(f"the page has no place for the table '{title}'")
        page = f"{before}{start}\n{_table(keys)}\n{end}{after}"
    return page


def _table(keys: Mapping[str, Key]) -> str:
    """Return one row per key; keys that are not migrated for the same reason share a row."""
    rows = [HEAD]
    for _, group in groupby(keys.items(), key=lambda item: item[0] if item[1].target else item[1]):
        members = list(group)
        key = members[0][1]
        names = ", ".join(f"`{name}`" for name, _ in members)
        target = f"`{key.target}`" if key.target else ""
        rows.append(
            f"| {names} | {_as_code(key.default)} | {target} | {key.note or key.docs_note} |"
        )
    return "\n".join(rows)


def _as_code(default: Any) -> str:
    if default is UNSET:
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`[{', '.join(default)}]`" if isinstance(default, list) else f"`{default}`"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated_page(path.read_text(encoding="utf-8")), encoding="utf-8")

"""Writes the tables of docs/coming_from.md from the tables of the origins."""

import sys
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from .arguments import ARGUMENTS
from .keys import UNSET, Key
from .origins import ORIGINS

__all__ = ["updated"]

HEAD = "| there | default there | here | what differs |\n| --- | --- | --- | --- |"


def updated(page: str) -> str:
    """Return the page with its tables as the code has them, the rest of it as it is.

    Raises:
        ValueError: If the page has no place for one of the tables.
    """
    tables = {origin.title: origin.keys for origin in ORIGINS} | {"arguments": ARGUMENTS}
    for name, keys in tables.items():
        start, end = f"<!-- table: {name} -->\n", f"\n<!-- /table: {name} -->"
        before, opened, rest = page.partition(start)
        _, closed, after = rest.partition(end)
        if not opened or not closed:
            raise ValueError(f"the page has no place for the table '{name}'")
        page = f"{before}{start}\n{_table(keys)}\n{end}{after}"
    return page


def _table(keys: Mapping[str, Key]) -> str:
    """Return one row a key; keys that are left out for one reason share theirs."""
    rows = [HEAD]
    for _, group in groupby(keys.items(), key=_reason):
        members = list(group)
        key = members[0][1]
        names = ", ".join(f"`{name}`" for name, _ in members)
        here = f"`{key.ours}`" if key.ours else ""
        rows.append(f"| {names} | {_default(key.default)} | {here} | {key.text} |")
    return "\n".join(rows)


def _reason(item: tuple[str, Key]) -> str:
    """Return what keys of one row share: the reason why they are left out, else the name."""
    name, key = item
    return name if key.ours else key.text


def _default(value: Any) -> str:
    if value is UNSET:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value}`" if not isinstance(value, list) else f"`[{', '.join(value)}]`"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(updated(path.read_text(encoding="utf-8")), encoding="utf-8")

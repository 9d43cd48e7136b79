"""Accept former names of keys, each with a warning that names the new key."""

import logging
from functools import cache
from typing import Any, TypeVar

from ..errors import Problem
from .yaml_loader import Document, KeyPath, key_name

__all__ = ["ALIASES", "rename_former_keys"]

Value = TypeVar("Value")

logger = logging.getLogger(__name__)

ALIASES: dict[KeyPath, KeyPath] = {("data", "pictures"): ("data", "images")}
"""Former key -> its name in the same section; each works for one release after its renaming."""


def rename_former_keys(document: Document) -> None:
    """Rename former keys of a document in place; a key that has both names is a problem.

    The keys below keep the lines of the file, or the overrides, that set them.
    """
    for former, current in ALIASES.items():
        section = _section(document.data, former[:-1])
        if section is None or former[-1] not in section:
            continue
        where = document.where(former)
        value = section.pop(former[-1])
        if current[-1] in section:
            text = f"it is the former name of '{key_name(current)}', which is set as well"
            remedy = f"Move its values to '{key_name(current)}' and remove it"
            document.problems.append(Problem(where, text, remedy))
            continue
        section[current[-1]] = value
        document.lines = _renamed(document.lines, former, current)
        document.overrides = _renamed(document.overrides, former, current)
        _warn(f"{where}: it is called '{key_name(current)}' now; the old name is deprecated")


def _section(data: Any, path: KeyPath) -> dict[Any, Any] | None:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else None


def _renamed(
    values: dict[KeyPath, Value], former: KeyPath, current: KeyPath
) -> dict[KeyPath, Value]:
    length = len(former)
    return {
        (*current, *path[length:]) if path[:length] == former else path: value
        for path, value in values.items()
    }


@cache
def _warn(text: str) -> None:
    """Log a warning once per process: a sweep reads its recipe several times."""
    logger.warning("%s", text)

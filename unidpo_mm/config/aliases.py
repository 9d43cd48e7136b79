"""Accept former names of keys, each with a warning that names the new key."""

import logging
from functools import cache
from typing import Any

from ..errors import Problem, RecipeError
from .yaml_loader import Document, KeyPath, key_name

__all__ = ["ALIASES", "rename_former_keys", "rename_former_options", "warn_once"]

logger = logging.getLogger(__name__)

PIXELS = {"image_min_pixels": "image_min_size", "image_max_pixels": "image_max_size"}
"""Former option in pixels -> the option in the unit of the model type."""

ALIASES: dict[KeyPath, str] = {
    ("data", "pictures"): "images",
    **{("model", former): name for former, name in PIXELS.items()},
}
"""Former key -> its name in the same section; each works for one release after its renaming."""


def rename_former_options(args: Any) -> None:
    """Move the values of former options of a `UniDPOConfig` to the present ones, in place.

    Raises:
        RecipeError: If an option has a value under both names.
    """
    problems = []
    for former, name in PIXELS.items():
        value = getattr(args, former)
        if value is None:
            continue
        if getattr(args, name) is not None:
            text = f"it is the former name of '{name}', which is set as well"
            problems.append(Problem(former, text, "Remove it"))
            continue
        setattr(args, name, _in_pixels(value))
        setattr(args, former, None)
        warn_once(f"{former}: it is called '{name}' now; the old name is deprecated")
    if problems:
        raise RecipeError(problems)


def _in_pixels(value: Any) -> Any:
    """Return a number of pixels with its unit; any other value unchanged, to be checked later."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return f"{value} pixels" if is_number else value


def rename_former_keys(document: Document) -> None:
    """Rename former keys of a document in place; a key that has both names is a problem.

    The keys below keep the lines of the file, or the overrides, that set them.
    """
    for former, name in ALIASES.items():
        section = document.data
        for part in former[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        if not isinstance(section, dict) or former[-1] not in section:
            continue
        where, current = document.where(former), (*former[:-1], name)
        value = section.pop(former[-1])
        if name in section:
            text = f"it is the former name of '{key_name(current)}', which is set as well"
            remedy = f"Move its values to '{key_name(current)}' and remove it"
            document.problems.append(Problem(where, text, remedy))
            continue
        section[name] = _in_pixels(value) if former[-1] in PIXELS else value
        tables: tuple[dict[KeyPath, Any], ...] = (document.lines, document.overrides)
        for places in tables:
            for path in [path for path in places if path[: len(former)] == former]:
                places[*current, *path[len(former) :]] = places.pop(path)
        warn_once(f"{where}: it is called '{key_name(current)}' now; the old name is deprecated")


@cache
def warn_once(text: str) -> None:
    """Log a warning once per process: a sweep reads its recipe several times."""
    logger.warning("%s", text)

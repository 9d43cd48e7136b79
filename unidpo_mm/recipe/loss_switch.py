"""Drop the parameters of the file's loss where an override chooses another loss.

`loss.name=dpo` on the command line would otherwise be refused, because of parameters that only the
loss of the file has. Parameters that are overrides themselves are kept, and checked as always.
"""

import dataclasses
import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UniDPOError
from ..plugins import is_path, load_loss
from .sections import LossSection
from .yaml_loader import Document, KeyPath, key_name

__all__ = ["drop_other_parameters", "loss_name"]

logger = logging.getLogger(__name__)

NAME: KeyPath = ("loss", "name")


def loss_name(document: Document) -> Any:
    """Return the name of the loss that a document states, or the default."""
    section = document.data.get("loss") if isinstance(document.data, dict) else None
    default = LossSection.model_fields["name"].default
    return section.get("name", default) if isinstance(section, dict) else default


def drop_other_parameters(document: Document, before: Any, folder: Path) -> None:
    """Remove from the document what the chosen loss does not have, and say so.

    Args:
        document: The document with its overrides.
        before: The name of the loss in the file.
        folder: The directory of the recipe.
    """
    name = loss_name(document)
    if NAME not in document.overrides or name == before or not isinstance(name, str):
        return
    try:
        place = folder / name if is_path(name) and (folder / name).is_file() else name
        fields = {field.name for field in dataclasses.fields(load_loss(str(place)).config)}
    except UniDPOError:  # the check of the loss reports it
        return
    dropped = []
    for path, section in _sections(document.data):
        for key in list(section):
            place_of_key = (*path, key)
            if key in fields or place_of_key == NAME or _overridden(document, place_of_key):
                continue
            del section[key]
            dropped.append(key_name(place_of_key))
    if dropped:
        _announce(f"loss.name={name}: dropped {', '.join(dropped)}, which only '{before}' has")


def _sections(data: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Return the sections of loss parameters with their paths."""
    if isinstance(data.get("loss"), dict):
        yield ("loss",), data["loss"]
    sources = data.get("data") if isinstance(data.get("data"), dict) else {}
    for group in ("sources", "eval_sources"):
        items = sources.get(group) if isinstance(sources, dict) else None
        for number, source in enumerate(items if isinstance(items, list) else []):
            if isinstance(source, dict) and isinstance(source.get("loss"), dict):
                yield ("data", group, number, "loss"), source["loss"]


def _overridden(document: Document, path: KeyPath) -> bool:
    """Return whether an override sets this key, something in it, or a section that holds it."""
    return any(
        other[: len(path)] == path or path[: len(other)] == other for other in document.overrides
    )


@cache
def _announce(text: str) -> None:
    """Say it once per process: a sweep reads its recipe several times."""
    logger.warning("%s", text)

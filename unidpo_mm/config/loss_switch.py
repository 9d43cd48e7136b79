"""Drop parameters of the file's loss if an override chooses another loss.

Otherwise `loss.name=dpo` on the command line would be an error, because of parameters that only the
loss in the file has. Parameters that are set by overrides are kept and checked as usual.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UniDPOError
from ..plugins import is_path, load_loss
from .aliases import warn_once
from .recipe import LossSection
from .yaml_loader import Document, KeyPath, key_name

__all__ = ["drop_other_parameters", "loss_name"]

NAME: KeyPath = ("loss", "name")


def loss_name(document: Document) -> Any:
    """Return the name of the loss in a document, or the default."""
    section = document.data.get("loss") if isinstance(document.data, dict) else None
    default = LossSection.model_fields["name"].default
    return section.get("name", default) if isinstance(section, dict) else default


def drop_other_parameters(document: Document, file_loss: Any, folder: Path) -> None:
    """Remove parameters that the chosen loss does not have, with a warning.

    Args:
        document: The document after its overrides were applied.
        file_loss: The name of the loss in the file.
        folder: The directory of the recipe.
    """
    name = loss_name(document)
    if NAME not in document.overrides or name == file_loss or not isinstance(name, str):
        return
    try:
        loss = folder / name if is_path(name) and (folder / name).is_file() else name
        parameters = {field.name for field in dataclasses.fields(load_loss(str(loss)).config)}
    except UniDPOError:  # the check of the loss reports it
        return
    dropped = []
    for section_path, section in _sections(document.data):
        for key in list(section):
            path = (*section_path, key)
            if key in parameters or path == NAME or _is_overridden(document, path):
                continue
            del section[key]
            dropped.append(key_name(path))
    if dropped:
        warn_once(f"loss.name={name}: dropped {', '.join(dropped)}, which only '{file_loss}' has")


def _sections(data: dict[str, Any]) -> Iterator[tuple[KeyPath, dict[str, Any]]]:
    """Yield each section of loss parameters with its path."""
    if isinstance(data.get("loss"), dict):
        yield ("loss",), data["loss"]
    sources = data.get("data") if isinstance(data.get("data"), dict) else {}
    for group in ("sources", "eval_sources"):
        items = sources.get(group) if isinstance(sources, dict) else None
        for number, source in enumerate(items if isinstance(items, list) else []):
            if isinstance(source, dict) and isinstance(source.get("loss"), dict):
                yield ("data", group, number, "loss"), source["loss"]


def _is_overridden(document: Document, path: KeyPath) -> bool:
    """Return whether an override sets this key, a key below it or a section above it."""
    return any(
        other[: len(path)] == path or path[: len(other)] == other for other in document.overrides
    )

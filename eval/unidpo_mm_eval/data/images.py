"""Opens the pictures of samples: base64 of a table, or files beside the data."""

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

from unidpo_mm.errors import DataError, Problem

from .samples import Picture

if TYPE_CHECKING:
    from unidpo_mm.records import ImageRef

__all__ = ["data_address", "picture_folder", "picture_reference"]


def picture_folder(data: Path, images: Path | None = None) -> Path:
    """Returns where names of picture files start: the folder named, else that of the data."""
    return images or (data if data.is_dir() else data.parent)


def data_address(image: "ImageRef") -> str:
    """Returns a picture as a data address that holds it, upright and in RGB, without loss."""
    stream = io.BytesIO()
    image.open().save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def picture_reference(picture: Picture, folder: Path, where: str) -> "ImageRef":
    """Returns a picture unopened; its `open()` gives it upright and in RGB.

    Args:
        picture: The picture.
        folder: Where names of files start.
        where: File and row, for messages.

    Raises:
        DataError: If there is no picture.
    """
    from unidpo_mm.data.images import PictureRules, image_refs
    from unidpo_mm.data.wrong import WrongValue

    if hasattr(picture.content, "describe"):  # a reference already, of a row of the core
        found: ImageRef = picture.content
        return found
    content = str(picture.content) if isinstance(picture.content, Path) else picture.content
    rules = PictureRules(folder=folder, allow_outside=isinstance(picture.content, Path))
    try:
        references = image_refs(content, rules, where)
    except WrongValue as error:
        raise DataError(Problem(where, error.found, error.remedy)) from error
    if len(references) != 1:
        text = f"there are {len(references)} images in place of one"
        raise DataError(Problem(where, text, "Use one path, bytes or PIL image"))
    return references[0]

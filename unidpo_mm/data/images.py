"""Pictures that are opened where they are needed, from paths, bytes or memory."""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from ..records import ImageRef

__all__ = ["FileImage", "MemoryImage", "image_refs"]


@dataclass(frozen=True, slots=True)
class FileImage:
    """A picture in a file."""

    path: Path
    where: str

    def open(self) -> Any:
        """Returns the picture upright and in RGB."""
        if not self.path.is_file():
            raise DataError(
                Problem(
                    self.where,
                    f"the picture '{self.path}' does not exist",
                    "Repair the path, or name the folder of the pictures in the source's 'images'",
                )
            )
        return _decode(self.path, self.where, self.describe())

    def describe(self) -> str:
        """Returns the path."""
        return str(self.path)

    def key(self) -> str:
        """Returns a hash of the file's content."""
        if not self.path.is_file():
            return str(self.path)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """A picture as encoded bytes, or as a `PIL.Image.Image`."""

    content: Any
    where: str

    def open(self) -> Any:
        """Returns the picture upright and in RGB."""
        content = self.content
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        return _decode(source, self.where, self.describe())

    def describe(self) -> str:
        """Says that the picture is in memory, and which one."""
        return f"in memory, {self.key()[:8]}"

    def key(self) -> str:
        """Returns a hash of the content."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        try:
            raw = self.content.tobytes()
        except (OSError, SyntaxError):  # opening it will say so with its row
            return f"{id(self.content):064x}"
        return hashlib.sha256(f"{self.content.mode}{self.content.size}".encode() + raw).hexdigest()


def image_refs(value: Any, folder: Path, where: str) -> tuple[ImageRef, ...]:
    """Returns the pictures of a field, unopened.

    Args:
        value: None, one picture or a list: paths (relative to `folder`), bytes, PIL pictures, or
            the ``{"bytes": ..., "path": ...}`` of `datasets`.
        folder: Where relative paths start.
        where: File, row and field, for messages.

    Raises:
        DataError: If an entry is none of these.
    """
    if value is None:
        return ()
    values = value if isinstance(value, list | tuple) else [value]
    return tuple(_ref(item, folder, where) for item in values)


def _ref(item: Any, folder: Path, where: str) -> ImageRef:
    if isinstance(item, Mapping) and item.get("bytes") is not None:
        return MemoryImage(bytes(item["bytes"]), where)
    if isinstance(item, Mapping) and isinstance(item.get("path"), str):
        item = item["path"]
    if isinstance(item, str) and "://" in item:
        remedy = "Download the picture and give its path: nothing is fetched during training"
        raise DataError(Problem(where, f"the picture is an address ({item[:80]})", remedy))
    if isinstance(item, str) and item:
        return FileImage(folder / item, where)
    if isinstance(item, bytes) or hasattr(item, "convert"):
        return MemoryImage(item, where)
    found = f"a picture is {type(item).__name__} ({str(item)[:60]!r})"
    raise DataError(Problem(where, found, "Give a path, bytes or a PIL picture"))


def _decode(source: Any, where: str, name: str) -> Any:
    """Returns a file, a stream or a `PIL.Image.Image` as an upright RGB picture of its own."""
    from PIL import Image

    try:
        if hasattr(source, "convert"):
            return _upright_rgb(source)
        with Image.open(source) as image:
            return _upright_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).strip() or type(error).__name__
        raise DataError(
            Problem(where, f"the picture '{name}' cannot be read ({reason})", "Replace the picture")
        ) from error


def _upright_rgb(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image).convert("RGB")

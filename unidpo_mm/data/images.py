"""Images that are opened where they are needed, from paths, bytes, addresses or memory."""

import base64
import binascii
import hashlib
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import ImageError, Problem
from ..records import ImageRef, PreferenceRow
from .decoding import decoded
from .pixels import image_of_pixels, is_pixels
from .wrong import WrongValue, brief

__all__ = [
    "MAX_PIXELS",
    "FileImage",
    "ImageKeys",
    "ImageRules",
    "MemoryImage",
    "UrlImage",
    "identity",
    "image_refs",
    "is_no_image",
    "unreadable_key",
]

MAX_PIXELS = 89_478_485
"""Most pixels of an image unless the user says otherwise: what Pillow warns at, 256 MB decoded."""

BASE64 = re.compile(r"\s*[A-Za-z0-9+/_\s-]{64,}={0,2}\s*")
"""A string that is an image and no path, where it is long or begins as images do."""
BEGINNINGS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A", "AAAA")
"""Of PNG, JPEG, GIF, WebP, BMP, both kinds of TIFF, and AVIF in base64."""
SHOWN_NAME = 300
"""Characters of a path that a message shows."""
ORIENTATION = 0x0112
"""The EXIF tag that says how an image is turned."""
MAX_NESTED = 1
"""Lists inside the list of images that are flattened: ``[[image]]``."""
BATCH_DIMENSIONS = 4
"""Dimensions of an array that holds several images."""
LONGEST_NAME = 255
"""Bytes that the name of a file has at most."""


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    """Where the images of a source are, and what may be opened.

    Attributes:
        folder: Where relative paths start.
        stated: The user named the folder: absolute paths have to lie in it, too.
        allow_outside: Paths may leave the folder.
        fetch: Addresses may be fetched.
        fetch_private: So may those of this machine and of the local network.
        max_pixels: Most pixels of an image.
    """

    folder: Path = Path()
    stated: bool = False
    allow_outside: bool = False
    fetch: bool = False
    fetch_private: bool = False
    max_pixels: int = MAX_PIXELS

    def path(self, written: str) -> Path:
        """Return the path of an image.

        Raises:
            WrongValue: If it leaves the folder. Links inside the folder may lead anywhere.
        """
        full = os.path.normpath(Path(self._root, written))
        contained = self.stated or not Path(written).is_absolute()
        inside = full.startswith(self._root.rstrip(os.sep) + os.sep)
        if contained and not self.allow_outside and not inside:
            raise WrongValue(
                f"the image '{written}' lies outside the folder '{self.folder}'",
                "Name the folder that holds all images in the source's 'images', or set its "
                "'images_outside' to true",
            )
        return Path(os.path.normpath(self.folder / written))

    @cached_property
    def _root(self) -> str:
        return os.path.normpath(self.folder.absolute())


@dataclass(frozen=True, slots=True)
class FileImage:
    """An image in a file."""

    path: Path
    where: str
    max_pixels: int = MAX_PIXELS

    def open(self) -> Any:
        """Return the image upright and in RGB."""
        if not _is_file(self.path):
            why = "is no file" if _exists(self.path) else "does not exist"
            raise ImageError(
                Problem(
                    self.where,
                    f"the image '{_shortened(str(self.path))}' {why}",
                    "Repair the path, or name the folder of the images in the source's 'images'",
                )
            )
        return decoded(self.path, self.where, self.describe(), self.max_pixels)

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    def key(self) -> str:
        """Return a hash of the file's content."""
        if not _is_file(self.path):
            return str(self.path)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """An image as encoded bytes, or as a `PIL.Image.Image`."""

    content: Any
    where: str
    max_pixels: int = MAX_PIXELS

    def open(self) -> Any:
        """Return the image upright and in RGB."""
        content = self.content
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        return decoded(source, self.where, self.describe(), self.max_pixels)

    def describe(self) -> str:
        """Says that the image is in memory, and which one."""
        return f"in memory, {self.key()[:8]}"

    def key(self) -> str:
        """Return a hash of the content."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        try:
            raw = self.content.tobytes()
        except Exception:  # decoders raise what they like; opening it says so with its row
            return f"{id(self.content):064x}"
        palette = self.content.getpalette() if self.content.mode == "P" else None
        turned = self.content.getexif().get(ORIENTATION)
        shown = f"{self.content.mode}{self.content.size}{palette}{turned}"
        return hashlib.sha256(shown.encode() + raw).hexdigest()


@dataclass(frozen=True, slots=True)
class UrlImage:
    """An image at an address, fetched once and kept on disk."""

    url: str
    where: str
    max_pixels: int = MAX_PIXELS
    private: bool = False

    def open(self) -> Any:
        """Return the image upright and in RGB."""
        return decoded(io.BytesIO(self.content()), self.where, self.url, self.max_pixels)

    def describe(self) -> str:
        """Return the address."""
        return _masked(self.url)

    def key(self) -> str:
        """Return a hash of the image's content."""
        return hashlib.sha256(self.content()).hexdigest()

    def content(self) -> bytes:
        """Return the encoded image."""
        from .fetch import PrivateAddressError, fetched

        try:
            return fetched(self.url, private=self.private)
        except PrivateAddressError as error:
            problem = f"the image '{_masked(self.url)}' is not fetched ({error})"
            remedy = (
                "Download the image and use its path, or set "
                "data.images.fetch_private_addresses to true"
            )
            raise ImageError(Problem(self.where, problem, remedy)) from error
        except OSError as error:
            problem = f"the image '{_masked(self.url)}' cannot be fetched ({error})"
            remedy = "Correct the URL, or download the images and use their paths"
            raise ImageError(Problem(self.where, problem, remedy)) from error


def identity(image: ImageRef) -> str:
    """Return what is equal for the same image without opening a file: its path, else its key."""
    if isinstance(image, FileImage | UrlImage):
        return image.describe()
    return image.key()


class ImageKeys:
    """Content hashes of images, each file read once; an unreadable image has one of its own."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def of(self, row: PreferenceRow) -> tuple[str, ...]:
        """Return the hashes of a row's images."""
        return tuple(map(self.key, row.images))

    def key(self, image: ImageRef) -> str:
        """Return the hash of an image's content."""
        if isinstance(image, MemoryImage):
            return image.key()
        name = identity(image)
        if name not in self.keys:
            try:
                self.keys[name] = image.key()
            except (OSError, ImageError):
                self.keys[name] = unreadable_key(name)
        return self.keys[name]


def unreadable_key(name: str) -> str:
    """Return what stands for the content of an image that cannot be read: only it has that key."""
    return f"unreadable: {name}"


def _masked(url: str) -> str:
    """Return a URL without the user name and password in it."""
    return re.sub(r"(?<=://)[^/@]*@", "***@", url)


def is_no_image(value: Any) -> bool:
    """Return whether an entry of an image column stands for no image.

    None, an empty string, and the `{"bytes": None, "path": None}` that `datasets` writes.
    """
    if isinstance(value, Mapping):
        return bool(value) and all(item is None or item == "" for item in value.values())
    return value is None or (isinstance(value, str) and not value)


def image_refs(value: Any, rules: ImageRules, where: str) -> tuple[ImageRef, ...]:
    """Return the images of a field, unopened.

    Args:
        value: None, one image or a list of them: paths, ``file://`` URLs, bytes, base64, URLs,
            `PIL.Image.Image`s, NumPy arrays or tensors (see `pixels.py`), or the
            ``{"bytes": ..., "path": ...}`` of `datasets`. An array of four dimensions is a list of
            images; a list inside the list is flattened; None, "" and a dict of Nones are no image.
        rules: Where paths start, and what may be opened.
        where: File, row and field, for messages.

    Raises:
        WrongValue: If an entry is none of these, or may not be opened.
    """
    return tuple(_ref(item, rules, where) for item in _items(value))


def _items(value: Any, *, nested: int = 0) -> Iterator[Any]:
    """Yield the entries of a field that stand for an image."""
    if isinstance(value, list | tuple) and nested <= MAX_NESTED:
        for item in value:
            yield from _items(item, nested=nested + 1)
    elif is_pixels(value) and value.ndim == BATCH_DIMENSIONS:
        yield from value
    elif not is_no_image(value):
        yield value


def _ref(item: Any, rules: ImageRules, where: str) -> ImageRef:
    if isinstance(item, Mapping) and item.get("bytes") is not None:
        item = item["bytes"]
    elif isinstance(item, Mapping):
        names = (name for name in ("path", "url") if isinstance(item.get(name), str | os.PathLike))
        item = next((item[name] for name in names), item)
    if isinstance(item, bytes | bytearray) or hasattr(item, "convert"):
        content = bytes(item) if isinstance(item, bytearray) else item
        return MemoryImage(content, where, rules.max_pixels)
    if is_pixels(item):
        return MemoryImage(image_of_pixels(item), where, rules.max_pixels)
    if isinstance(item, str | os.PathLike) and (text := os.fspath(item)):
        return _of_text(str(text), rules, where)
    problem = f"an image is {type(item).__name__} ({brief(item)!r})"
    raise WrongValue(problem, "Use a path, bytes, a PIL image, an array or a tensor")


def _of_text(text: str, rules: ImageRules, where: str) -> ImageRef:
    header, comma, encoded = text.partition(",")
    if header.lower().startswith("data:") and comma:
        return MemoryImage(_from_base64(encoded), where, rules.max_pixels)
    if text[:7].lower() == "file://":
        return FileImage(rules.path(_path_of_url(text)), where, rules.max_pixels)
    if "://" in text:
        if not rules.fetch:
            problem = f"the image is an address ({text[:80]})"
            remedy = "Download the image and give its path, or set the source's 'fetch_images'"
            raise WrongValue(problem, remedy)
        return UrlImage(text, where, rules.max_pixels, rules.fetch_private)
    long = len(text) > LONGEST_NAME and "/" not in text[-LONGEST_NAME:]
    if BASE64.fullmatch(text) and (long or text.lstrip().startswith(BEGINNINGS)):
        return MemoryImage(_from_base64(text), where, rules.max_pixels)
    if "\0" in text:
        raise WrongValue("the path of an image holds a zero byte", "Repair the path")
    return FileImage(rules.path(text), where, rules.max_pixels)


def _path_of_url(url: str) -> str:
    """Return the path of a ``file://`` URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise WrongValue(
            f"the URL '{url[:80]}' is not valid ({error})", "Correct the URL"
        ) from error
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path:
        problem = (
            f"the URL '{url[:80]}' names the host '{parts.netloc}', not a file of this machine"
        )
        raise WrongValue(problem, "Use file:///absolute/path, or the path itself")
    if "\0" in path:
        raise WrongValue("the path of an image holds a zero byte", "Correct the path")
    return path


def _from_base64(text: str) -> bytes:
    try:
        plain = re.sub(r"\s", "", text).replace("-", "+").replace("_", "/")
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError) as error:
        problem = f"an image in base64 cannot be decoded ({error})"
        raise WrongValue(problem, "Encode the image again") from error


def _shortened(name: str) -> str:
    return name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}..."


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long for any file
        return False

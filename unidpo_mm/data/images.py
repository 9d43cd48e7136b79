"""Images of rows, opened when they are used: from files, memory or URLs."""

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from ..errors import ImageError, Problem
from ..records import ImageRef, MediaKind, PreferenceRow
from .decoding import MAX_PIXELS, decode
from .download import IMAGES, downloaded, masked_url
from .invalid_value import InvalidValue, brief
from .pixels import image_of_pixels, is_pixels

__all__ = [
    "FileImage",
    "ImageRules",
    "MemoryImage",
    "UrlImage",
    "distinct_images",
    "entries",
    "exists",
    "from_base64",
    "identity",
    "image_refs",
    "in_threads",
    "is_file",
    "is_missing",
    "path_of_url",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

BASE64 = re.compile(r"\s*[A-Za-z0-9+/_\s-]{64,}={0,2}\s*")
"""A string that is an image and not a path, if it is long or has one of the beginnings below."""
BASE64_PREFIXES = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A", "AAAA")
"""Of PNG, JPEG, GIF, WebP, BMP, both kinds of TIFF, and AVIF."""
MAX_SHOWN_NAME = 300
"""The maximum number of characters of a path in a message."""
ORIENTATION = 0x0112
"""The EXIF tag of the orientation."""
MAX_NESTED = 1
"""Levels of lists inside the list of images that are flattened: ``[[image]]``."""
BATCH_DIMENSIONS = 4
"""Dimensions of an array of several images."""
MAX_FILE_NAME = 255
"""The maximum length of a file name in bytes."""
BATCH = 1024
"""Images per batch of the thread pool, so that memory does not grow with the number of rows."""


@dataclass(frozen=True, kw_only=True)
class ImageRules:
    """Location of the images of a source, and which images may be opened.

    Attributes:
        folder: Directory that relative paths start from.
        explicit: Whether the user has set the directory; absolute paths must then be inside, too.
        allow_outside: Whether paths may lead outside of the directory.
        download: Whether URLs may be downloaded.
        download_private: Whether they may lead to this machine or the local network.
        max_pixels: The maximum number of pixels of an image.
    """

    folder: Path = Path()
    explicit: bool = False
    allow_outside: bool = False
    download: bool = False
    download_private: bool = False
    max_pixels: int = MAX_PIXELS

    def path(self, written: str, kind: MediaKind = "image") -> Path:
        """Return the path of an image or a video.

        Raises:
            InvalidValue: If it is outside of the directory, or no path. Links inside may lead
                anywhere.
        """
        if "\0" in written:
            raise InvalidValue(f"the path of the {kind} contains a null byte", "Correct the path")
        full = os.path.normpath(Path(self._root, written))
        contained = self.explicit or not Path(written).is_absolute()
        inside = full.startswith(self._root.rstrip(os.sep) + os.sep)
        if contained and not self.allow_outside and not inside:
            raise InvalidValue(
                f"the {kind} '{written}' is outside of the directory '{self.folder}'",
                f"Set the source's 'images' to the directory that contains all {kind}s, or its "
                "'images_outside' to true",
            )
        return Path(os.path.normpath(self.folder / written))

    def check_url(self, url: str, kind: MediaKind = "image") -> None:
        """Raise InvalidValue if URLs may not be downloaded."""
        if not self.download:
            remedy = (
                f"Download the {kind} and use its path, or set the source's 'fetch_images' to true"
            )
            raise InvalidValue(f"the {kind} is a URL ({masked_url(url)[:80]})", remedy)

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
        """Return the upright image in RGB."""
        if not is_file(self.path):
            why = "is not a file" if exists(self.path) else "does not exist"
            name = str(self.path)
            name = name if len(name) <= MAX_SHOWN_NAME else f"{name[:MAX_SHOWN_NAME]}..."
            remedy = "Correct the path, or set the source's 'images' to the directory of the images"
            raise ImageError(Problem(self.where, f"the image '{name}' {why}", remedy))
        return decode(self.path, self.where, self.describe(), self.max_pixels)

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    def key(self) -> str:
        """Return a hash of the file's content."""
        if not is_file(self.path):
            return str(self.path)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


@dataclass(frozen=True, slots=True)
class MemoryImage:
    """An image as encoded bytes, or as a `PIL.Image.Image`."""

    content: Any
    where: str
    max_pixels: int = MAX_PIXELS

    def open(self) -> Any:
        """Return the upright image in RGB."""
        content = self.content
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        return decode(source, self.where, self.describe(), self.max_pixels)

    def describe(self) -> str:
        """Return that it is in memory, and the beginning of its key."""
        return f"in memory, {self.key()[:8]}"

    def key(self) -> str:
        """Return a hash of the content."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        try:
            raw = self.content.tobytes()
        except Exception:  # decoders raise errors of many kinds; `open` reports them
            return f"{id(self.content):064x}"
        palette = self.content.getpalette() if self.content.mode == "P" else None
        orientation = self.content.getexif().get(ORIENTATION)
        header = f"{self.content.mode}{self.content.size}{palette}{orientation}"
        return hashlib.sha256(header.encode() + raw).hexdigest()


@dataclass(frozen=True, slots=True)
class UrlImage:
    """An image at a URL, downloaded once and cached on disk."""

    url: str
    where: str
    max_pixels: int = MAX_PIXELS
    private: bool = False

    def open(self) -> Any:
        """Return the upright image in RGB."""
        return decode(io.BytesIO(self.content()), self.where, self.describe(), self.max_pixels)

    def describe(self) -> str:
        """Return the URL without its password."""
        return masked_url(self.url)

    def key(self) -> str:
        """Return a hash of the image's content."""
        return hashlib.sha256(self.content()).hexdigest()

    def content(self) -> bytes:
        """Return the encoded image."""
        return downloaded(self.url, self.where, IMAGES, private=self.private)


def identity(image: ImageRef) -> str:
    """Return a name that is equal for the same image: its path or URL, else its key."""
    if isinstance(image, FileImage | UrlImage):
        return image.describe()
    return image.key()


def distinct_images(
    rows: Iterable[PreferenceRow], name_of: Callable[[ImageRef], str]
) -> dict[str, ImageRef]:
    """Return the images of rows by their names, each once, in their order."""
    images: dict[str, ImageRef] = {}
    for row in rows:
        for image in (*row.images, *row.other_images):
            images.setdefault(name_of(image), image)
    return images


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of items in order; decoding, reading and hashing release Python's lock."""
    waiting = iter(items)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        while batch := list(islice(waiting, BATCH)):
            yield from pool.map(function, batch)


def is_missing(value: Any) -> bool:
    """Return whether an entry of an image column is empty.

    This is `None`, an empty string, or the `{"bytes": None, "path": None}` that `datasets` writes.
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
            images; a list inside the list is flattened; entries that `is_missing` are skipped.
        rules: Where they are, and which may be opened.
        where: File, row and field, for messages.

    Raises:
        InvalidValue: If an entry is something else, or may not be opened.
    """
    return tuple(_ref(item, rules, where) for item in entries(value))


def entries(value: Any, *, nested: int = 0) -> Iterator[Any]:
    """Yield the entries of a field that are not empty."""
    if isinstance(value, list | tuple) and nested <= MAX_NESTED:
        for item in value:
            yield from entries(item, nested=nested + 1)
    elif is_pixels(value) and value.ndim == BATCH_DIMENSIONS:
        yield from value
    elif not is_missing(value):
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
    raise InvalidValue(problem, "Use a path, bytes, a PIL image, an array or a tensor")


def _of_text(text: str, rules: ImageRules, where: str) -> ImageRef:
    header, comma, encoded = text.partition(",")
    if header.lower().startswith("data:") and comma:
        return MemoryImage(from_base64(encoded), where, rules.max_pixels)
    if text[:7].lower() == "file://":
        return FileImage(rules.path(path_of_url(text)), where, rules.max_pixels)
    if "://" in text:
        rules.check_url(text)
        return UrlImage(text, where, rules.max_pixels, rules.download_private)
    long = len(text) > MAX_FILE_NAME and "/" not in text[-MAX_FILE_NAME:]
    if BASE64.fullmatch(text) and (long or text.lstrip().startswith(BASE64_PREFIXES)):
        return MemoryImage(from_base64(text), where, rules.max_pixels)
    return FileImage(rules.path(text), where, rules.max_pixels)


def path_of_url(url: str) -> str:
    """Return the path of a ``file://`` URL."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidValue(
            f"the URL '{url[:80]}' is not valid ({error})", "Correct the URL"
        ) from error
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path:
        problem = f"the URL '{url[:80]}' names the host '{parts.netloc}', not a local file"
        raise InvalidValue(problem, "Use file:///absolute/path, or the path itself")
    return path


def from_base64(text: str, what: str = "an image") -> bytes:
    """Return the content that a base64 text encodes."""
    try:
        return base64.b64decode("".join(text.split()), altchars=b"-_", validate=True)
    except ValueError as error:
        problem = f"{what} in base64 cannot be decoded ({error})"
        raise InvalidValue(problem, "Encode it again") from error


def is_file(path: Path) -> bool:
    """Return whether a path is a file; false if it is not a possible path."""
    return exists(path) and path.is_file()


def exists(path: Path) -> bool:
    """Return whether a path exists; false if it is not a possible path."""
    try:
        return path.exists()
    except (OSError, ValueError):  # for example, the name is too long
        return False

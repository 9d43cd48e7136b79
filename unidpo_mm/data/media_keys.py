"""Content hashes of the images and videos of rows, each of which is read once."""

import hashlib
from collections.abc import Iterable

from ..errors import DataError
from ..records import ImageRef, PreferenceRow, VideoRef
from .images import FileImage, MemoryImage, identity, in_threads
from .videos import FileVideo, FramesVideo, MemoryVideo, UrlVideo, video_identity

__all__ = ["UNREADABLE", "MediaKeys", "content_key", "media_name"]

MediaRef = ImageRef | VideoRef

UNREADABLE = "unreadable "
"""Beginning of the key of an image or a video that cannot be read."""


class MediaKeys:
    """Content hashes of the images and videos of rows; unreadable ones have unique keys.

    Files are streamed through SHA-256, images in memory are hashed with their pixels, size and
    mode. Nothing is decoded.
    """

    def __init__(self, rows: Iterable[PreferenceRow]) -> None:
        media: dict[str, MediaRef] = {}
        for row in rows:
            for ref in row.all_media:
                media.setdefault(media_name(ref), ref)
        self._keys = dict(zip(media, in_threads(content_key, media.values()), strict=True))

    def key(self, media: MediaRef) -> str:
        """Return the key of an image or a video."""
        return self._keys[media_name(media)]

    def of(self, row: PreferenceRow) -> tuple[str, ...]:
        """Return the keys of a row's images and videos."""
        return tuple(map(self.key, row.media))


def media_name(media: MediaRef) -> str:
    """Return a name that is equal for the same image or video; it is valid in this process only."""
    if isinstance(media, MemoryImage | MemoryVideo):
        return f"memory {id(media.content)}"
    if isinstance(media, FileVideo | FramesVideo | UrlVideo):
        return f"{type(media).__name__} {video_identity(media)}"
    return f"{type(media).__name__} {identity(media)}"  # type: ignore[arg-type] # only images are left


def content_key(media: MediaRef) -> str:
    """Return a hash of the content of an image or a video; a unique text if it is unreadable."""
    try:
        if isinstance(media, FileImage | FileVideo):  # `key` of a missing video is its path
            with media.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return media.key()
    except (OSError, ValueError, DataError):
        return f"{UNREADABLE}{media.describe()}"

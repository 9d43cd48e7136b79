"""Videos of rows, decoded when they are used: from files, memory, URLs or lists of frames."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cache.keys import file_digest
from ..errors import DataError, Problem, VideoError
from ..records import FrameSampling, ImageRef, SampledVideo, VideoRef
from .decoding import MAX_PIXELS
from .download import VIDEOS, downloaded, masked_url
from .images import (
    ImageRules,
    exists,
    from_base64,
    identity,
    image_refs,
    is_file,
    is_missing,
    path_of_url,
)
from .invalid_value import InvalidValue, brief
from .pixels import is_pixels
from .video_decoding import decode_video

__all__ = [
    "FileVideo",
    "FramesVideo",
    "MemoryVideo",
    "UrlVideo",
    "is_frame_list",
    "video_identity",
    "video_refs",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of files that would be read as a video with a single frame."""
FRAMES_DIMENSIONS = 4
"""Dimensions of an array of frames."""
FORMS = "Use a path, bytes, a list of frames or an array of frames"


@dataclass(frozen=True, slots=True)
class FileVideo:
    """A video in a file."""

    path: Path
    where: str
    max_pixels: int = MAX_PIXELS

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return sampled frames."""
        if not is_file(self.path):
            why = "is not a file" if exists(self.path) else "does not exist"
            remedy = "Correct the path, or set the source's 'images' to the directory of the videos"
            raise VideoError(Problem(self.where, f"the video '{self.path}' {why}", remedy))
        return decode_video(self.path, self.where, self.describe(), sampling, self.max_pixels)

    def describe(self) -> str:
        """Return the path."""
        return str(self.path)

    def key(self) -> str:
        """Return a hash of the file's content."""
        return file_digest(self.path) if is_file(self.path) else str(self.path)


@dataclass(frozen=True, slots=True)
class MemoryVideo:
    """A video as encoded bytes."""

    content: bytes
    where: str
    max_pixels: int = MAX_PIXELS

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return sampled frames."""
        return decode_video(self.content, self.where, self.describe(), sampling, self.max_pixels)

    def describe(self) -> str:
        """Return that it is in memory, and the beginning of its key."""
        return f"in memory, {self.key()[:8]}"

    def key(self) -> str:
        """Return a hash of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class UrlVideo:
    """A video at a URL, downloaded once and cached on disk."""

    url: str
    where: str
    max_pixels: int = MAX_PIXELS
    private: bool = False

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return sampled frames."""
        return decode_video(self.content(), self.where, self.describe(), sampling, self.max_pixels)

    def describe(self) -> str:
        """Return the URL without its password."""
        return masked_url(self.url)

    def key(self) -> str:
        """Return a hash of the video's content."""
        return hashlib.sha256(self.content()).hexdigest()

    def content(self) -> bytes:
        """Return the encoded video."""
        return downloaded(self.url, self.where, VIDEOS, private=self.private)


@dataclass(frozen=True, slots=True)
class FramesVideo:
    """A video as images of its frames, which were sampled at the frame rate of the run."""

    frames: tuple[ImageRef, ...]

    def sample(self, sampling: FrameSampling) -> SampledVideo:
        """Return the frames; if there are too many, some of them, spread evenly."""
        total = len(self.frames)
        indices = sampling.indices(total, sampling.fps)
        opened: dict[int, Any] = {}
        problems: list[Problem] = []
        for number in dict.fromkeys(indices):
            try:
                opened[number] = self.frames[number].open()
            except DataError as error:
                problems += error.problems
        if problems:
            raise VideoError(problems)
        if len({image.size for image in opened.values()}) > 1:
            first = next(iter(opened.values())).size
            opened = {number: image.resize(first) for number, image in opened.items()}
        return SampledVideo(
            tuple(opened[number] for number in indices), indices, total, sampling.fps
        )

    def describe(self) -> str:
        """Return the number of frames and the first one."""
        return f"{len(self.frames)} frames, {self.frames[0].describe()} first"

    def key(self) -> str:
        """Return a hash of the frames' keys."""
        return hashlib.sha256("\n".join(frame.key() for frame in self.frames).encode()).hexdigest()


def video_identity(video: VideoRef) -> str:
    """Return a name that is equal for the same video: its path, URL or frames, else its key."""
    if isinstance(video, FileVideo | UrlVideo):
        return video.describe()
    if isinstance(video, FramesVideo):
        return "\n".join(map(identity, video.frames))
    return video.key()


def is_frame_list(value: Any) -> bool:
    """Return whether a list has the frames of a video, and not the paths of several videos."""
    return isinstance(value, list | tuple) and all(
        not isinstance(item, str) or item.lower().endswith(IMAGE_SUFFIXES) for item in value
    )


def video_refs(value: Any, rules: ImageRules, where: str) -> tuple[VideoRef, ...]:
    """Return the videos of a field, unopened.

    Args:
        value: None, one video or a list of them: paths, ``file://`` URLs, bytes, URLs, the
            ``{"bytes": ..., "path": ...}`` of `datasets`, lists of images (the frames of a video),
            or arrays of frames.
        rules: Where they are, and which may be opened; those of the images.
        where: File, row and field, for messages.

    Raises:
        InvalidValue: If an entry is something else, or may not be opened.
    """
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple(_ref(item, rules, where) for item in entries if not _is_empty(item))


def _is_empty(item: Any) -> bool:
    """Return whether an entry of a video column is empty."""
    return is_missing(item) or (isinstance(item, list | tuple) and all(map(_is_empty, item)))


def _ref(item: Any, rules: ImageRules, where: str) -> VideoRef:
    if isinstance(item, list | tuple):
        return FramesVideo(image_refs(item, rules, where))
    if is_pixels(item) and item.ndim == FRAMES_DIMENSIONS:
        return FramesVideo(image_refs(item, rules, where))
    if isinstance(item, Mapping) and item.get("bytes") is not None:
        item = item["bytes"]
    elif isinstance(item, Mapping):
        item = next((item[name] for name in ("path", "url", "video") if item.get(name)), item)
    if isinstance(item, bytes | bytearray):
        return MemoryVideo(bytes(item), where, rules.max_pixels)
    if isinstance(item, str | os.PathLike) and (text := os.fspath(item)):
        return _of_text(str(text), rules, where)
    raise InvalidValue(f"a video is {type(item).__name__} ({brief(item)!r})", FORMS)


def _of_text(text: str, rules: ImageRules, where: str) -> VideoRef:
    header, comma, encoded = text.partition(",")
    if header.lower().startswith("data:") and comma:
        return MemoryVideo(from_base64(encoded, "a video"), where, rules.max_pixels)
    if text.lower().endswith(IMAGE_SUFFIXES):
        remedy = "Write the frames of a video as a list of their own: [[frame, frame, ...]]"
        raise InvalidValue(f"the video '{text[:80]}' is an image", remedy)
    if text[:7].lower() == "file://":
        return FileVideo(rules.path(path_of_url(text), "video"), where, rules.max_pixels)
    if "://" not in text:
        return FileVideo(rules.path(text, "video"), where, rules.max_pixels)
    rules.check_url(text, "video")
    return UrlVideo(text, where, rules.max_pixels, rules.download_private)

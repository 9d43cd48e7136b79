"""Prompts to which responses are generated, with what is needed to sort and to identify them."""

import hashlib
import io
from dataclasses import dataclass
from typing import Any

from ..records import PreferenceRow

__all__ = ["Prompt", "prompt_of"]

VIDEO_AREA = 32 * 640 * 360
"""Pixels of the frames of a video, a guess, because files are not opened for it."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt.

    Attributes:
        id: Its id.
        row: The prompt; `None` if it cannot be built.
        error: Why not.
        area: Number of pixels of its images according to their headers, and a guess for videos.
        length: Number of characters of its text.
    """

    id: str
    row: PreferenceRow | None = None
    error: str | None = None
    area: int = 0
    length: int = 0

    def record(self) -> dict[str, str]:
        """Return hashes of the text with the positions of media, and of the media."""
        if self.row is None:
            return {"prompt": ""}
        # hashes that earlier versions stored contain the former name of an image slot
        text = repr(self.row.messages).replace("MediaSlot(kind='image')", "ImageSlot()")
        record = {"prompt": _hash(text)}
        if self.row.images:
            record["images"] = _hash(" ".join(image.key() for image in self.row.images))
        if self.row.videos:
            record["videos"] = _hash(" ".join(video.key() for video in self.row.videos))
        return record


def prompt_of(row: PreferenceRow) -> Prompt:
    """Return the prompt of a row."""
    length = sum(len(message.text) for message in row.messages)
    area = sum(map(_area, row.images)) + VIDEO_AREA * len(row.videos)
    return Prompt(id=row.id, row=row, area=area, length=length)


def _area(image: Any) -> int:
    """Return the number of pixels according to an image's header; 0 if that cannot be read."""
    from PIL import Image

    source: Any = getattr(image, "path", None) or getattr(image, "content", None)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return int(opened.width * opened.height)
    except Exception:  # decoders raise any exception; opening the image later reports it
        return 0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

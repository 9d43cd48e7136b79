"""Excerpts of a row for pages: the text of its prompt, and small images and first frames."""

import io
from typing import Any

from ..errors import DataError
from ..records import FrameSampling, ImageRef, MediaSlot, PreferenceRow, VideoRef

__all__ = ["prompt_text", "thumbnails"]


def prompt_text(row: PreferenceRow) -> str:
    """Return the messages of a prompt, one per line, with a mark for each image or video."""
    return "\n".join(
        f"{message.role}: {''.join(map(_part, message.parts))}" for message in row.messages
    )


def thumbnails(row: PreferenceRow, *, side: int) -> list[bytes]:
    """Return the images of a row, and the first frames of its videos, as small JPEG files.

    Media that cannot be opened are missing.

    Args:
        row: The row.
        side: Maximum number of pixels of the longer side.
    """
    files = [_thumbnail(media, side) for media in row.media]
    return [content for content in files if content]


def _part(part: str | MediaSlot) -> str:
    return f"[{part.kind}] " if isinstance(part, MediaSlot) else part


def _thumbnail(media: ImageRef | VideoRef, side: int) -> bytes:
    try:
        opened = _first_image(media)
    except DataError:
        return b""
    opened.thumbnail((side, side))
    stream = io.BytesIO()
    opened.convert("RGB").save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _first_image(media: Any) -> Any:
    """Return an image, or the first frame of a video."""
    if hasattr(media, "sample"):
        return media.sample(FrameSampling(max_frames=2)).frames[0].copy()
    return media.open()

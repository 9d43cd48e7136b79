"""Messages in OpenAI's format, with images and videos as data URLs."""

import base64
import io
import mimetypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import DataError, Problem
from .endpoint import ChatMessage

if TYPE_CHECKING:
    from ..records import ImageRef, VideoRef

__all__ = ["data_url", "image_part", "user_message", "video_part"]


def data_url(image: "ImageRef") -> str:
    """Return an image, upright and in RGB, as a lossless data URL."""
    stream = io.BytesIO()
    image.open().save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def image_part(url: str) -> dict[str, Any]:
    """Return the part of a message for an image, a data URL."""
    return {"type": "image_url", "image_url": {"url": url}}


def video_part(video: "VideoRef", where: str) -> dict[str, Any]:
    """Return the part of a message for a video, as the content of its file.

    The server samples its frames.

    Raises:
        DataError: If it is a list of frames, for which the format has no place.
    """
    path, content = getattr(video, "path", None), getattr(video, "content", None)
    encoded = path.read_bytes() if path is not None else content() if callable(content) else content
    if not isinstance(encoded, bytes):
        problem = "the video is a list of frames, and servers accept files only"
        raise DataError(Problem(where, problem, "Write the video as a file"))
    kind = mimetypes.guess_type(str(path))[0] or "video/mp4"
    url = f"data:{kind};base64,{base64.b64encode(encoded).decode('ascii')}"
    return {"type": "video_url", "video_url": {"url": url}}


def user_message(text: str, images: Sequence[str] = ()) -> list[ChatMessage]:
    """Return one message of a user; images, as data URLs, precede the text."""
    if not images:
        return [{"role": "user", "content": text}]
    parts = [image_part(url) for url in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]

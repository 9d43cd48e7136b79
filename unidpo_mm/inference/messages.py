"""Messages in OpenAI's format, with images as data URLs."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .endpoint import ChatMessage

if TYPE_CHECKING:
    from ..records import ImageRef

__all__ = ["data_url", "image_part", "user_message"]


def data_url(image: "ImageRef") -> str:
    """Return an image, upright and in RGB, as a lossless data URL."""
    stream = io.BytesIO()
    image.open().save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def image_part(url: str) -> dict[str, Any]:
    """Return the part of a message for an image, a data URL."""
    return {"type": "image_url", "image_url": {"url": url}}


def user_message(text: str, images: Sequence[str] = ()) -> list[ChatMessage]:
    """Return one message of a user; images, as data URLs, precede the text."""
    if not images:
        return [{"role": "user", "content": text}]
    parts = [image_part(url) for url in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]

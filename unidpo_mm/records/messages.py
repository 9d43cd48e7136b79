"""Messages of a prompt, with places for images and videos."""

import json
from dataclasses import dataclass
from typing import Any, Literal, Protocol

__all__ = ["MEDIA_KINDS", "ROLES", "ImageRef", "MediaKind", "MediaSlot", "Message"]

MediaKind = Literal["image", "video"]
"""Kinds of media in a prompt."""
MEDIA_KINDS: tuple[MediaKind, ...] = ("image", "video")
ROLES = ("system", "user", "assistant", "tool")


class ImageRef(Protocol):
    """An image that is opened when it is used, so that rows stay small."""

    def open(self) -> Any:
        """Return a `PIL.Image.Image` in RGB; raise `DataError` if it cannot be read."""
        ...

    def describe(self) -> str:
        """Return a name of the image for messages."""
        ...

    def key(self) -> str:
        """Return a string that is equal for equal images."""
        ...


@dataclass(frozen=True, slots=True)
class MediaSlot:
    """The place of one image or video inside a message; the media of a kind fill them in order."""

    kind: MediaKind


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        parts: Text and media slots in reading order.
        extras: Further keys of the turn for the chat template, such as `tool_calls`, as a JSON
            object; empty if there are none.
    """

    role: str
    parts: tuple[str | MediaSlot, ...]
    extras: str = ""

    @property
    def text(self) -> str:
        """The text parts, concatenated."""
        return "".join(part for part in self.parts if isinstance(part, str))

    def turn(self) -> dict[str, Any]:
        """Return the turn as chat templates take it, with a list of parts as its content."""
        parts = [
            {"type": part.kind} if isinstance(part, MediaSlot) else {"type": "text", "text": part}
            for part in self.parts
        ]
        extras = json.loads(self.extras) if self.extras else {}
        return {"role": self.role, "content": parts, **extras}

    def slots(self, kind: MediaKind) -> int:
        """Return the number of images, or of videos, in this message."""
        return self.parts.count(MediaSlot(kind))

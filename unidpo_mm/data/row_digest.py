"""Digests of single rows, which cover everything that can change a loss; see `digest.py`."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

from ..records import ImageRef, MediaSlot, PreferenceRow, VideoRef
from .media_keys import MediaKeys
from .view_image import ViewImage

__all__ = ["row_digest", "row_digests"]

IGNORED_FIELDS = frozenset({"id", "source", "where"})
"""Fields of a row that do not change a loss; sources are compared separately."""

LATER_FIELDS = ("videos", "labels", "other_images")
"""Fields that do not count if they are empty, because checkpoints of earlier versions have digests
without them."""


class KeySource(Protocol):
    """Knows the content hashes of images and videos, such as `MediaKeys`."""

    def key(self, media: ImageRef | VideoRef) -> str:
        """Return the hash of an image or a video."""
        ...


def row_digests(rows: Sequence[PreferenceRow]) -> list[bytes]:
    """Return the SHA-256 of each row, for which each distinct image and video is read once."""
    media_keys = MediaKeys(rows)
    return [row_digest(row, media_keys) for row in rows]


def row_digest(row: PreferenceRow, media_keys: KeySource) -> bytes:
    """Return the SHA-256 of a row; every field that `IGNORED_FIELDS` does not list counts."""
    content = {
        field.name: _plain(getattr(row, field.name), media_keys)
        for field in dataclasses.fields(row)
        if field.name not in IGNORED_FIELDS
    }
    for name in LATER_FIELDS:
        if not content[name]:
            del content[name]
    # JSON in ASCII is unambiguous, keeps every digit of a float and takes unpaired surrogates
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).digest()


def _plain(value: Any, media_keys: KeySource) -> Any:
    """Return a field of a row as a value of JSON."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, tuple):
        return [_plain(item, media_keys) for item in value]
    if isinstance(value, MediaSlot):
        return {value.kind: True}
    if isinstance(value, ViewImage):
        return {"view": [value.view, value.kept, _plain(value.image, media_keys)]}
    if hasattr(value, "open"):
        return {"image": media_keys.key(value)}
    if hasattr(value, "sample"):
        return {"video": media_keys.key(value)}
    return [
        _plain(getattr(value, field.name), media_keys)
        for field in dataclasses.fields(value)
        if field.compare and not (field.name == "good" and value.good is None)
    ]

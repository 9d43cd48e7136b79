"""Rows as bytes, for files of rows: JSON, followed by the images and videos that are in memory.

Only rows whose media are files, URLs or encoded bytes can be written. Reading does not check the
rows again, because only checked rows are written.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..records import ImageRef, Label, MediaSlot, Message, Pair, PreferenceRow, Response, VideoRef
from .images import FileImage, MemoryImage, UrlImage
from .videos import FileVideo, FramesVideo, MemoryVideo, UrlVideo

__all__ = ["NotStorable", "decode_row", "encode_row", "plain_messages"]

SIZE_BYTES = 4
"""Bytes of the length of the JSON text, which comes first."""

FILES = {"file": FileImage, "file video": FileVideo}
MEMORY = {"memory": MemoryImage, "memory video": MemoryVideo}
URLS = {"url": UrlImage, "url video": UrlVideo}


class NotStorable(Exception):
    """A row has an image or a video, such as an object of PIL, that cannot be written."""


def plain_messages(row: PreferenceRow) -> list[Any]:
    """Return the messages of a row as values of JSON, which are equal for equal messages."""
    return [
        [
            message.role,
            [[part.kind] if isinstance(part, MediaSlot) else part for part in message.parts],
            message.extras,
        ]
        for message in row.messages
    ]


def encode_row(row: PreferenceRow) -> bytes:
    """Return a row as bytes.

    Raises:
        NotStorable: If an image or a video is of another kind.
    """
    blobs: list[bytes] = []
    content = [
        *(row.id, row.domain, row.source, row.where, plain_messages(row)),
        [_plain_media(image, blobs) for image in row.images],
        [_plain_media(video, blobs) for video in row.videos],
        [_plain_media(image, blobs) for image in row.other_images],
        [[r.text, r.score, r.field, r.score_field] for r in row.responses],
        [[p.chosen, p.rejected, p.weight, p.row_id, p.good] for p in row.pairs],
        [[n.response, n.good, n.weight, n.row_id] for n in row.labels],
        *(row.raw, row.tools, row.template_kwargs, row.reasoning),
    ]
    try:
        # JSON in ASCII keeps every digit of a float and takes unpaired surrogates
        text = json.dumps(content, separators=(",", ":")).encode("ascii")
    except TypeError as error:
        raise NotStorable(str(error)) from error
    return b"".join((len(text).to_bytes(SIZE_BYTES, "little"), text, *blobs))


def decode_row(content: bytes | memoryview) -> PreferenceRow:
    """Return the row that `encode_row` wrote."""
    view = memoryview(content)
    start = SIZE_BYTES + int.from_bytes(view[:SIZE_BYTES], "little")
    fields = json.loads(bytes(view[SIZE_BYTES:start]))
    row_id, domain, source, where, messages, images, videos, other_images = fields[:8]
    responses, pairs, labels = fields[8:11]
    values = {
        "id": row_id,
        "domain": domain,
        "source": source,
        "where": where,
        "messages": tuple(_message(*message) for message in messages),
        "images": tuple(_media(image, view[start:]) for image in images),
        "videos": tuple(_media(video, view[start:]) for video in videos),
        "other_images": tuple(_media(image, view[start:]) for image in other_images),
        "responses": tuple(Response(*response) for response in responses),
        "pairs": tuple(Pair(*pair) for pair in pairs),
        "labels": tuple(Label(*label) for label in labels),
        **dict(zip(("raw", "tools", "template_kwargs", "reasoning"), fields[11:], strict=True)),
    }
    row = object.__new__(PreferenceRow)  # its checks passed before it was written
    row.__dict__.update(values)
    return row


def _message(role: str, parts: Sequence[Any], extras: str) -> Message:
    return Message(role, tuple(p if isinstance(p, str) else MediaSlot(p[0]) for p in parts), extras)


def _plain_media(media: ImageRef | VideoRef, blobs: list[bytes]) -> list[Any]:
    """Return an image or a video as a value of JSON; append its content, if that is in memory."""
    if isinstance(media, FramesVideo):
        return ["frames", [_plain_media(frame, blobs) for frame in media.frames]]
    for kind, file_class in FILES.items():
        if type(media) is file_class:
            return [kind, str(media.path), media.where, media.max_pixels]
    for kind, url_class in URLS.items():
        if type(media) is url_class:
            return [kind, media.url, media.where, media.max_pixels, media.private]
    for kind, memory_class in MEMORY.items():
        if type(media) is memory_class and isinstance(media.content, bytes):
            start = sum(map(len, blobs))
            blobs.append(media.content)
            return [kind, start, len(media.content), media.where, media.max_pixels]
    raise NotStorable(type(media).__name__)


def _media(content: Sequence[Any], blob: memoryview) -> Any:
    kind, *values = content
    if kind == "frames":
        return FramesVideo(tuple(_media(frame, blob) for frame in values[0]))
    if kind in FILES:
        return FILES[kind](Path(values[0]), *values[1:])
    if kind in URLS:
        return URLS[kind](*values)
    start, size, where, max_pixels = values
    return MEMORY[kind](bytes(blob[start : start + size]), where, max_pixels)

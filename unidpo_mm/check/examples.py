"""Example rows for the HTML page, with thumbnails of their images."""

import io
from collections.abc import Sequence

from ..errors import DataError
from ..records import ImageRef, MediaSlot, PreferenceRow
from .numbers import evenly_spaced
from .report import ExampleRow

__all__ = ["example_rows"]

THUMBNAIL_SIDE = 160
"""Pixels of the longer side of a thumbnail."""


def example_rows(rows: Sequence[PreferenceRow], number: int) -> list[ExampleRow]:
    """Return evenly spaced rows with pairs."""
    return [_example(row) for row in evenly_spaced([row for row in rows if row.pairs], number)]


def _example(row: PreferenceRow) -> ExampleRow:
    pair = row.pairs[0]
    chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
    prompt = "\n".join(
        f"{message.role}: "
        + "".join("[image] " if isinstance(part, MediaSlot) else part for part in message.parts)
        for message in row.messages
    )
    scored = chosen.score is not None and rejected.score is not None
    return ExampleRow(
        where=row.where,
        prompt=prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        scores=f"{chosen.score:g} vs. {rejected.score:g}" if scored else "no scores",
        images=[thumbnail for thumbnail in map(_thumbnail, row.images) if thumbnail],
    )


def _thumbnail(image: ImageRef) -> bytes:
    try:
        opened = image.open()
    except DataError:
        return b""
    opened.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=80)
    return stream.getvalue()

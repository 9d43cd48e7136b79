"""Example rows for the HTML page, with thumbnails of their images and first frames."""

import io
from collections.abc import Sequence
from typing import Any

import numpy

from ..data.row_table import columns_of
from ..errors import DataError
from ..records import FrameSampling, ImageRef, MediaSlot, PreferenceRow, VideoRef
from .numbers import evenly_spaced
from .report import ExampleRow

__all__ = ["example_rows"]

THUMBNAIL_SIDE = 160
"""Pixels of the longer side of a thumbnail."""


def example_rows(rows: Sequence[PreferenceRow], number: int) -> list[ExampleRow]:
    """Return evenly spaced rows with pairs."""
    with_pairs = numpy.flatnonzero(columns_of(rows).pairs).tolist()
    return [_example(rows[index]) for index in evenly_spaced(with_pairs, number)]


def _example(row: PreferenceRow) -> ExampleRow:
    pair = row.pairs[0]
    chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
    prompt = "\n".join(
        f"{message.role}: {''.join(map(_part, message.parts))}" for message in row.messages
    )
    scored = chosen.score is not None and rejected.score is not None
    return ExampleRow(
        where=row.where,
        prompt=prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        scores=f"{chosen.score:g} vs. {rejected.score:g}" if scored else "no scores",
        images=[thumbnail for media in row.media if (thumbnail := _thumbnail(media))],
    )


def _part(part: str | MediaSlot) -> str:
    return f"[{part.kind}] " if isinstance(part, MediaSlot) else part


def _thumbnail(media: ImageRef | VideoRef) -> bytes:
    try:
        opened = _first_image(media)
    except DataError:
        return b""
    opened.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _first_image(media: Any) -> Any:
    """Return an image, or the first frame of a video."""
    if hasattr(media, "sample"):
        return media.sample(FrameSampling(max_frames=2)).frames[0].copy()
    return media.open()

"""A few rows for the page, with small copies of their images."""

import io
from collections.abc import Sequence

from ..errors import DataError
from ..records import ImageRef, ImageSlot, PreferenceRow
from .report import Shown

__all__ = ["shown_rows"]

SIDE = 160
"""Pixels of the longer side of a small image."""


def shown_rows(rows: Sequence[PreferenceRow], number: int) -> list[Shown]:
    """Return rows from all over the data, as they would be shown."""
    paired = [row for row in rows if row.pairs]
    step = max(len(paired) // max(number, 1), 1)
    return [_shown(row) for row in paired[::step][:number]]


def _shown(row: PreferenceRow) -> Shown:
    pair = row.pairs[0]
    chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
    prompt = "\n".join(
        f"{message.role}: "
        + "".join("[image] " if isinstance(part, ImageSlot) else part for part in message.parts)
        for message in row.messages
    )
    scored = chosen.score is not None and rejected.score is not None
    return Shown(
        where=row.where,
        prompt=prompt,
        chosen=chosen.text,
        rejected=rejected.text,
        scores=f"{chosen.score:g} against {rejected.score:g}" if scored else "no scores",
        images=[small for small in map(_small, row.images) if small],
    )


def _small(image: ImageRef) -> bytes:
    try:
        opened = image.open()
    except DataError:
        return b""
    opened.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    opened.save(stream, "JPEG", quality=80)
    return stream.getvalue()

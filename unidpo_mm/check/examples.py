"""Example rows for the HTML page, with thumbnails of their images and first frames."""

from collections.abc import Sequence

import numpy

from ..data.excerpts import prompt_text, thumbnails
from ..data.row_table import columns_of
from ..records import PreferenceRow
from .numbers import evenly_spaced
from .report import ExampleRow

__all__ = ["example_rows"]

THUMBNAIL_SIDE = 160
"""Pixels of the longer side of a thumbnail."""


def example_rows(rows: Sequence[PreferenceRow], number: int) -> list[ExampleRow]:
    """Return evenly spaced rows with pairs or labels."""
    with_units = numpy.flatnonzero(columns_of(rows).labeled).tolist()
    return [_example(rows[index]) for index in evenly_spaced(with_units, number)]


def _example(row: PreferenceRow) -> ExampleRow:
    if not row.pairs:
        label = row.labels[0]
        text = row.responses[label.response].text
        return ExampleRow(
            where=row.where,
            prompt=prompt_text(row),
            chosen=text if label.good else "",
            rejected="" if label.good else text,
            scores="labeled good" if label.good else "labeled bad",
            images=thumbnails(row, side=THUMBNAIL_SIDE),
        )
    pair = row.pairs[0]
    chosen, rejected = row.responses[pair.chosen], row.responses[pair.rejected]
    scored = chosen.score is not None and rejected.score is not None
    return ExampleRow(
        where=row.where,
        prompt=prompt_text(row),
        chosen=chosen.text,
        rejected=rejected.text,
        scores=f"{chosen.score:g} vs. {rejected.score:g}" if scored else "no scores",
        images=thumbnails(row, side=THUMBNAIL_SIDE),
    )

"""Other images of rows, for the image preference (`losses/image_preference.py`)."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy
from numpy.typing import NDArray

from ..config.image_preference import ImageTerm, View
from ..errors import Problem
from ..records import PreferenceRow
from .columns import RowColumns
from .groups import rows_before
from .row_table import columns_of, table_of
from .view_image import ChangedView, ViewImage

__all__ = ["view_problems", "with_changed_images", "with_views"]


def with_views(
    rows: Sequence[PreferenceRow], view: View, *, kept: float
) -> Sequence[PreferenceRow]:
    """Return rows whose images have other ones to be compared with.

    Args:
        rows: The rows; those without images are not changed.
        view: How the other images are made; ``column`` keeps those of the data, ``shuffle`` takes
            those of the nearest row before with the same number of images.
        kept: As in `ViewImage`.
    """
    if view == "column":
        return rows
    table = table_of(rows)
    if view == "shuffle":
        partners = _partners(table.columns, table.media_keys)
        return table.with_partners(partners, _with_images, _columns_of_partners)
    change = functools.partial(_with_changes, view=view, kept=kept)
    return table.with_partners([-1] * len(table), change, _columns_of_changes)


def _partners(columns: RowColumns, media_keys: Sequence[tuple[str, ...]]) -> list[int]:
    """Return for each row the row whose images it gets; -1 if there is none."""
    partners = [-1] * len(columns)
    images = columns.images
    for count in set(images.tolist()) - {0}:
        numbers = numpy.flatnonzero(images == count).tolist()
        before = rows_before([media_keys[number][:count] for number in numbers])
        for number, place in zip(numbers, before, strict=True):
            partners[number] = -1 if place < 0 else numbers[place]
    return partners


def _columns_of_partners(columns: RowColumns, has_partner: NDArray[Any]) -> RowColumns:
    return replace(columns, other_images=columns.images * has_partner)


def _columns_of_changes(columns: RowColumns, has_partner: NDArray[Any]) -> RowColumns:
    return replace(columns, other_images=columns.images)


def _with_images(row: PreferenceRow, partner: PreferenceRow | None) -> PreferenceRow:
    return replace(row, other_images=() if partner is None else partner.images)


def _with_changes(
    row: PreferenceRow, partner: PreferenceRow | None, *, view: ChangedView, kept: float
) -> PreferenceRow:
    return with_changed_images(row, view=view, kept=kept)


def with_changed_images(row: PreferenceRow, *, view: ChangedView, kept: float) -> PreferenceRow:
    """Return a row with changed images as its other images."""
    return replace(row, other_images=tuple(ViewImage(image, view, kept) for image in row.images))


def view_problems(rows: Sequence[PreferenceRow], term: ImageTerm | None) -> Iterator[Problem]:
    """Yield a problem for each row whose other images are missing, or are not used.

    Args:
        rows: The rows, as they were read.
        term: The image preference; `None` if there is none.
    """
    columns = columns_of(rows)
    if term is not None and term.view == "column":
        for number in numpy.flatnonzero((columns.images > 0) & (columns.other_images == 0)):
            text = "the row has images and no rejected_images, which view: column needs"
            remedy = "Add the column, or set train.image_preference.view to crop"
            yield Problem(f"{rows[int(number)].where}, field 'rejected_images'", text, remedy)
        return
    for number in numpy.flatnonzero(columns.other_images > 0):
        text = "the row has rejected_images, which are only used with view: column"
        remedy = "Set train.image_preference to {view: column}, or remove the column"
        yield Problem(f"{rows[int(number)].where}, field 'rejected_images'", text, remedy)

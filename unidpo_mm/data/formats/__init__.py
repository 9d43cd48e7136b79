"""Layouts of preference data, one file each, recognised by their columns.

A module exports `FORMAT`. `_reader.py` and `_messages.py` hold what they share.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import Domain, PreferenceRow, Response
from ..images import ImageRules

__all__ = ["Context", "Format"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a format needs to know beside the record itself.

    Attributes:
        source: Name of the source.
        where: File and row, for messages.
        id: Id of a row that has none of its own.
        images: Where relative image paths start, and what may be opened.
        domain: Domain of the source; None to tell it from the row.
        scale: Maps a score of the source to the scale of the run; raises ValueError for a score
            outside the source's declared scale.
        pairing: Makes pairs (chosen, rejected) of the answers of a row by their scores.
        needs_scores: The loss needs a score for every answer of a pair.
        columns: Name of a column of the format -> its name in the file, where they differ.
        arrow: The record comes from Arrow (Parquet, `datasets`), whose nulls may not be in the
            source; see `_messages.py`.
    """

    source: str
    where: str
    id: str
    images: ImageRules
    domain: Domain | None
    scale: Callable[[float], float]
    pairing: Callable[[Sequence[Response]], Sequence[tuple[int, int]]]
    needs_scores: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    arrow: bool = False


def _any(record: Mapping[str, Any]) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout.

    Attributes:
        name: Name of the module.
        required: Columns by which the layout is recognised; of several that fit, the one that
            reads most columns of the row is taken.
        known: Every column that the layout reads, the required ones among them.
        parse: (record, context) -> row; raises DataError with all problems of the record.
        matches: Tells layouts with the same columns apart by what stands in them.
        one_answer: A row holds one of the answers of its prompt; rows of one prompt are joined.
        data_sets: Public data sets of this layout, for the list of formats.
    """

    name: str
    required: frozenset[str]
    known: frozenset[str]
    parse: Callable[[Mapping[str, Any], Context], PreferenceRow]
    matches: Callable[[Mapping[str, Any]], bool] = _any
    one_answer: bool = False
    data_sets: tuple[str, ...] = ()

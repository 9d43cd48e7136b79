"""Layouts of preference data, one file each, recognised by their columns.

A module exports `FORMAT`. `_fields.py` holds what they share.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...records import Domain, PreferenceRow

__all__ = ["Context", "Format"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a format needs to know beside the record itself.

    Attributes:
        source: Name of the source.
        where: File and row, for messages.
        number: Row number, from 1.
        images: Folder that relative picture paths start from.
        domain: Domain of the source; None to tell it from the row.
        scale: Maps a score of the source to the scale of the run; raises ValueError for a score
            outside the source's declared scale.
        needs_scores: The loss needs a score for every answer of a pair.
    """

    source: str
    where: str
    number: int
    images: Path
    domain: Domain | None
    scale: Callable[[float], float]
    needs_scores: bool = False


@dataclass(frozen=True, kw_only=True)
class Format:
    """One layout.

    Attributes:
        name: Name of the module.
        required: Columns by which the layout is recognised.
        known: Every column that the layout reads.
        parse: (record, context) -> row; raises DataError with all problems of the record.
    """

    name: str
    required: frozenset[str]
    known: frozenset[str]
    parse: Callable[[Mapping[str, Any], Context], PreferenceRow]

"""Formats of preference data, one module each, detected from their columns.

A module exports `FORMAT`. `_reader.py` and `_messages.py` contain what they share.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...records import Domain, PreferenceRow, Response
from ..images import ImageRules

__all__ = ["Context", "Format"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """Place and options of a record.

    Attributes:
        source: Name of the source.
        where: File and row, for messages.
        id: Id of the row if the record has none.
        images: Where relative image paths start, and which images may be opened.
        domain: Domain of the source; `None` to determine it from the row.
        scale: Maps a score of the source to the scale of the run; raises `ValueError` for a score
            outside of the declared scale of the source.
        pairing: Returns pairs (chosen, rejected) of the responses of a row by their scores.
        needs_scores: Whether the loss needs a score for every response of a pair.
        incomplete: Whether scores may be missing from which pairs are formed, because they are
            added later.
        columns: Column of the format -> its name in the file, if it has another one.
        arrow: Whether the record comes from Arrow (Parquet, `datasets`), where null may stand for a
            missing key; see `_messages.py`.
    """

    source: str
    where: str
    id: str
    images: ImageRules
    domain: Domain | None
    scale: Callable[[float], float]
    pairing: Callable[[Sequence[Response]], Sequence[tuple[int, int]]]
    needs_scores: bool = False
    incomplete: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    arrow: bool = False


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of preference data.

    Attributes:
        name: Name of the module.
        required: Columns from which the format is detected. If several formats fit, the one that
            reads the largest number of columns of the row is used.
        columns: All columns that the format reads, including the required ones.
        parse: (record, context) -> row; raises `DataError` with all problems of the record.
        matches: Distinguishes formats with the same columns by their values.
        single_response: Whether each record has a single response, so that records with the same
            prompt are joined.
    """

    name: str
    required: frozenset[str]
    columns: frozenset[str]
    parse: Callable[[Mapping[str, Any], Context], PreferenceRow]
    matches: Callable[[Mapping[str, Any]], bool] = lambda record: True
    single_response: bool = False

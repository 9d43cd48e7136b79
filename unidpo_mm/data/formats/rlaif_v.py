"""Pairs that ask by `question`: RLAIF-V, SPA-VL and MMPR."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, SCORES, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    row.prompt("question")
    row.dialogues("chosen", "rejected")
    chosen = row.response("chosen", "score_chosen")
    return row.pair(chosen, row.response("rejected", "score_rejected"))


FORMAT = Format(
    name="rlaif_v",
    required=frozenset({"question", "chosen", "rejected"}),
    known=COMMON | SCORES | {"question", "chosen", "rejected"},
    parse=parse,
    data_sets=("RLAIF-V", "SPA-VL", "MMPR"),
)

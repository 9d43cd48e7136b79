"""A pair whose prompt is in the column `question`: RLAIF-V, SPA-VL and MMPR."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, SCORES, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    row.read_prompt("question")
    row.extend_prompt("chosen", "rejected")
    chosen = row.response("chosen", "score_chosen")
    return row.pair(chosen, row.response("rejected", "score_rejected"))


FORMAT = Format(
    name="rlaif_v",
    required=frozenset({"question", "chosen", "rejected"}),
    columns=COMMON | SCORES | {"question", "chosen", "rejected"},
    parse=parse,
    data_sets=("RLAIF-V", "SPA-VL", "MMPR"),
)

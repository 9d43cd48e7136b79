"""A pair with prompt, chosen and rejected, as in TRL and the official text and math data."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, SCORES, RowReader

__all__ = ["FORMAT"]


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    row.read_prompt()
    row.extend_prompt("chosen", "rejected")
    chosen = row.response("chosen", "score_chosen")
    return row.pair(chosen, row.response("rejected", "score_rejected"))


FORMAT = Format(
    name="pairs",
    required=frozenset({"prompt", "chosen", "rejected"}),
    columns=COMMON | SCORES | {"prompt", "chosen", "rejected"},
    parse=parse,
    data_sets=("UltraFeedback binarized", "MM-RLHF", "official Uni-DPO, text and math"),
)

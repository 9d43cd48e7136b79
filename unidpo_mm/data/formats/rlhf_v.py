"""RLHF-V: an image, and a column `text` with question, chosen and rejected as JSON."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._messages import describe, parse_json
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

REMEDY = "Write JSON with question, chosen and rejected, or use these as columns"


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raise `DataError` with all its problems."""
    row = RowReader(record, context)
    inside = _inside(row)
    if inside is None:
        row.stop()
    row.read_prompt("text.question", inside.get("question") or "")
    chosen = row.response("text.chosen", text=inside.get("chosen") or "")
    return row.pair(chosen, row.response("text.rejected", text=inside.get("rejected") or ""))


def _inside(row: RowReader) -> Mapping[str, Any] | None:
    text = row.get("text")
    try:
        inside = parse_json(text) if isinstance(text, str) else text
    except ValueError as error:
        row.note("text", f"not valid JSON ({error})", REMEDY)
        return None
    if isinstance(inside, Mapping):
        return inside
    row.note("text", f"found {describe(inside)}", REMEDY)
    return None


FORMAT = Format(
    name="rlhf_v",
    required=frozenset({"text", "image"}),
    columns=COMMON | {"text"},
    parse=parse,
    data_sets=("RLHF-V",),
)

"""RLHF-V: an image, and a column `text` with question, chosen and rejected as JSON."""

from collections.abc import Mapping

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, RowReader, parser
from ._values import describe, parse_json

__all__ = ["FORMAT"]

REMEDY = "Write JSON with question, chosen and rejected, or use these as columns"


def _read(row: RowReader) -> PreferenceRow:
    inside = row.get("text")
    try:
        inside = parse_json(inside) if isinstance(inside, str) else inside
        problem = f"found {describe(inside)}"
    except ValueError as error:
        problem = f"not valid JSON ({error})"
    if not isinstance(inside, Mapping):
        row.note("text", problem, REMEDY)
        row.stop()
    row.read_prompt("text.question", inside.get("question") or "")
    chosen = row.response("text.chosen", text=inside.get("chosen") or "")
    return row.pair(chosen, row.response("text.rejected", text=inside.get("rejected") or ""))


FORMAT = Format(
    name="rlhf_v",
    required=frozenset({"text", "image"}),
    columns=COMMON | {"text"},
    parse=parser(_read),
)

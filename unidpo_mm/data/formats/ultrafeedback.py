"""UltraFeedback as published: an instruction and four completions with their overall scores."""

from ...records import PreferenceRow
from . import Format
from ._completions import read_completions
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt("instruction")
    return row.ranked(read_completions(row, "overall_score", lambda value: value))


FORMAT = Format(
    name="ultrafeedback",
    required=frozenset({"instruction", "completions"}),
    columns=COMMON | {"instruction", "completions"},
    parse=parser(_read),
)

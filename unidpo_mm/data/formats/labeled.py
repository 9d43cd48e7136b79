"""TRL's labeled responses: a prompt, a completion, and whether it is good; for the loss `kto`."""

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt()
    return row.labeled(row.response("completion", "score"), "label")


FORMAT = Format(
    name="labeled",
    required=frozenset({"prompt", "completion", "label"}),
    columns=COMMON | {"prompt", "completion", "label", "score"},
    parse=parser(_read),
)

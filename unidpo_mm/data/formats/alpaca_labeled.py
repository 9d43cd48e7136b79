"""LLaMA-Factory's labeled responses in alpaca style: an instruction, an output and `kto_tag`."""

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, RowReader, parser
from .alpaca import alpaca_prompt

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt("instruction", alpaca_prompt(row))
    return row.labeled(row.response("output", "score"), "kto_tag")


FORMAT = Format(
    name="alpaca_labeled",
    required=frozenset({"instruction", "output", "kto_tag"}),
    columns=COMMON | {"instruction", "input", "output", "history", "kto_tag", "score"},
    parse=parser(_read),
)

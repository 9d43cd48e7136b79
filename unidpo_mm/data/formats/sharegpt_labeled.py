"""LLaMA-Factory's labeled dialogues: conversations that end with the response, and `kto_tag`."""

from ...records import PreferenceRow
from . import Format
from ._dialogues import split_dialogue
from ._reader import COMMON, RowReader, parser
from .sharegpt import chat_turn

__all__ = ["FORMAT"]


def _read(row: RowReader) -> PreferenceRow:
    response = split_dialogue(row, "conversations", chat_turn)
    return row.labeled(response, "kto_tag")


FORMAT = Format(
    name="sharegpt_labeled",
    required=frozenset({"conversations", "kto_tag"}),
    columns=COMMON | {"conversations", "kto_tag", "score"},
    parse=parser(_read),
)

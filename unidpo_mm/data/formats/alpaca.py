"""LLaMA-Factory's alpaca ranking, also used by the official image data: instruction and a pair.

Older files contain both responses in the list `output`, the chosen one first.
"""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Format
from ._reader import COMMON, SCORES, RowReader, parser
from ._values import describe

__all__ = ["FORMAT", "alpaca_prompt"]


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt("instruction", alpaca_prompt(row))
    texts: tuple[Any, Any] = (row.get("chosen"), row.get("rejected"))
    names = ("chosen", "rejected")
    if isinstance(row.get("output"), list | tuple):
        output = list(row.get("output"))
        if len(output) != 2:
            remedy = "Use the chosen and the rejected response, in this order"
            row.note("output", f"found {len(output)} responses", remedy)
        texts, names = (*output, "", "")[:2], ("output[0]", "output[1]")
    chosen = row.response(names[0], "score_chosen", text=texts[0])
    return row.pair(chosen, row.response(names[1], "score_rejected", text=texts[1]))


def alpaca_prompt(row: RowReader) -> Any:
    """Return the turns of the history, followed by instruction and input as one question."""
    texts = [row.get("instruction"), row.get("input")]
    for name, text in zip(("instruction", "input"), texts, strict=True):
        if text is not None and not isinstance(text, str):
            row.note(name, f"found {describe(text)}", "Use a string")
            return ""
    question = "\n".join(text for text in texts if text)
    turns: list[dict[str, Any]] = []
    history = row.get("history") or ()
    for number, turn in enumerate(history if isinstance(history, list | tuple) else (history,)):
        if not (isinstance(turn, list | tuple) and len(turn) == 2):
            remedy = "Write each turn as [question, response]"
            row.note(f"history[{number}]", f"found {describe(turn)}", remedy)
            continue
        turns += [
            {"role": "user", "content": turn[0]},
            {"role": "assistant", "content": turn[1]},
        ]
    return [*turns, {"role": "user", "content": question}] if turns else question


def _is_ranking(record: Mapping[str, Any]) -> bool:
    pair = record.get("chosen") is not None and record.get("rejected") is not None
    return pair or isinstance(record.get("output"), list | tuple)


FORMAT = Format(
    name="alpaca",
    required=frozenset({"instruction"}),
    columns=COMMON | SCORES | {"instruction", "input", "output", "history", "chosen", "rejected"},
    parse=parser(_read),
    matches=_is_ranking,
)

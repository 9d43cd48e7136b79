"""Several scored answers a row: prompt and responses, each with text and score; our own format.

`pairs` lists preferences as [chosen, rejected] or [chosen, rejected, weight], by number from 0.
An empty list is no pair. Where it is missing, which scored answers make a pair is a setting of the
source. A row with a single answer has no pair and serves losses whose unit is the response.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...records import Pair, PreferenceRow
from . import Context, Format
from ._messages import describe, is_empty
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

MANY = 1000
"""More answers than a row ever has."""


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context)
    row.prompt()
    items = _items(row)
    responses = [
        row.response(
            f"responses[{number}]",
            f"responses[{number}].score",
            text=_text(row, number, item),
            given=item.get("score") if isinstance(item, Mapping) else None,
        )
        for number, item in enumerate(items)
    ]
    given = row.get("pairs")
    if given is not None and not (isinstance(given, str) and is_empty(given)):
        return row.row(responses, _pairs(row, given))
    unscored = sum(isinstance(item, Mapping) and item.get("score") is None for item in items)
    if len(items) > 1 and unscored:
        remedy = "Give every answer a score: pairs are made of answers with different scores"
        row.note("responses", f"{unscored} of {len(items)} answers have no score", remedy)
    return row.ranked(responses)


def _pairs(row: RowReader, value: Any) -> list[Pair]:
    remedy = "Give [chosen, rejected] or [chosen, rejected, weight], answers numbered from 0"
    pairs = []
    for number, one in enumerate(value if isinstance(value, list | tuple) else [value]):
        if not isinstance(one, list | tuple) or len(one) not in (2, 3) or not _numbers(one):
            row.note(f"pairs[{number}]", f"found {describe(one)}", remedy)
            continue
        own = row.number(f"pairs[{number}]", one[2]) if len(one) == 3 else 1.0
        weight = row.weight() * (1.0 if own is None else own)
        pairs.append(Pair(int(one[0]), int(one[1]), weight))
    return pairs


def _numbers(pair: Sequence[Any]) -> bool:
    # Parquet keeps one type a list: whole numbers beside a weight come back as 0.0
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in pair)
    return numbers and all(abs(n) < MANY and n == int(n) for n in pair[:2])


def _items(row: RowReader) -> Sequence[Any]:
    value = row.get("responses")
    if isinstance(value, list | tuple) and value:
        return value
    row.note("responses", "found no list of answers", "Give a list of {'text': ..., 'score': ...}")
    return ()


def _text(row: RowReader, number: int, item: Any) -> str:
    text = item.get("text") if isinstance(item, Mapping) else None
    if isinstance(text, str):
        return text
    remedy = "Write each answer as {'text': ..., 'score': ...}"
    row.note(f"responses[{number}].text", f"found {describe(item)}", remedy)
    return f"(no answer {number})"


FORMAT = Format(
    name="ranked",
    required=frozenset({"prompt", "responses"}),
    known=COMMON | {"prompt", "responses", "pairs"},
    parse=parse,
)

"""The native format: a prompt and several responses, each with text and score.

`pairs` lists preferences as [chosen, rejected] or [chosen, rejected, weight], with indices from 0.
An empty list means no pairs. If it is missing, pairs are formed from the scores, by the options of
the source. A row with a single response has no pair and is used by losses with unit ``response``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ...records import Pair, PreferenceRow
from . import Format
from ._reader import COMMON, SCORES_REMEDY, RowReader, parser
from ._values import describe, is_empty

__all__ = ["FORMAT"]

MAX_RESPONSES = 1000
"""Limit of the indices in `pairs`; no row has as many responses."""


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt()
    items = _items(row)
    responses = [
        row.response(
            f"responses[{number}]",
            f"responses[{number}].score",
            text=_text(row, number, item),
            score=item.get("score") if isinstance(item, Mapping) else None,
        )
        for number, item in enumerate(items)
    ]
    pairs = row.get("pairs")
    if pairs is not None and not (isinstance(pairs, str) and is_empty(pairs)):
        return row.row(responses, _pairs(row, pairs))
    unscored = sum(isinstance(item, Mapping) and item.get("score") is None for item in items)
    if len(items) > 1 and unscored and not row.context.incomplete:
        problem = f"{unscored} of {len(items)} responses have no score"
        row.note("responses", problem, SCORES_REMEDY)
    return row.ranked(responses)


def _pairs(row: RowReader, value: Any) -> list[Pair]:
    remedy = "Use [chosen, rejected] or [chosen, rejected, weight], with indices from 0"
    pairs = []
    for number, pair in enumerate(value if isinstance(value, list | tuple) else [value]):
        if not isinstance(pair, list | tuple) or len(pair) not in (2, 3) or not _numbers(pair):
            row.note(f"pairs[{number}]", f"found {describe(pair)}", remedy)
            continue
        weight = row.number(f"pairs[{number}]", pair[2]) if len(pair) == 3 else None
        weight = row.weight() * (1.0 if weight is None else weight)
        pairs.append(Pair(int(pair[0]), int(pair[1]), weight))
    return pairs


def _numbers(pair: Sequence[Any]) -> bool:
    # Parquet lists have a single type: next to a weight, indices come as 0.0
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in pair)
    return numbers and all(abs(n) < MAX_RESPONSES and n == int(n) for n in pair[:2])


def _items(row: RowReader) -> Sequence[Any]:
    value = row.get("responses")
    if isinstance(value, list | tuple) and value:
        return value
    remedy = "Use a list of {'text': ..., 'score': ...}"
    row.note("responses", "expected a list of responses", remedy)
    return ()


def _text(row: RowReader, number: int, item: Any) -> str:
    text = item.get("text") if isinstance(item, Mapping) else None
    if isinstance(text, str):
        return text
    remedy = "Write each response as {'text': ..., 'score': ...}"
    row.note(f"responses[{number}].text", f"found {describe(item)}", remedy)
    return f"(no response {number})"


FORMAT = Format(
    name="ranked",
    required=frozenset({"prompt", "responses"}),
    columns=COMMON | {"prompt", "responses", "pairs", "gold"},  # gold: for scorers, not trained on
    parse=parser(_read),
)

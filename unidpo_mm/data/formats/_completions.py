"""Lists of completions, each with its response and what judges said of it."""

from collections.abc import Callable, Mapping
from typing import Any

from ...records import Response
from ._messages import describe
from ._reader import RowReader

__all__ = ["completions_of"]


def completions_of(
    row: RowReader,
    judged: str,
    score: Callable[[Any], Any],
    *,
    column: str = "completions",
    some_unrated: bool = False,
) -> list[Response]:
    """Return the answers of a row with their scores.

    Args:
        row: The row.
        judged: Key of a completion that holds its judgement.
        score: Judgement -> number, or None where there is none.
        column: The column of the completions.
        some_unrated: Answers without a score belong to the format.
    """
    items = _items(row, column)
    responses = []
    for number, item in enumerate(items):
        name = f"{column}[{number}]"
        if not isinstance(item, Mapping):
            row.note(name, f"found {describe(item)}", "Write {'response': ...}")
            continue
        text = item.get("response")
        given = score(item.get(judged))
        field = f"{name}.{judged}"
        if given is None and len(items) > 1 and not some_unrated:
            remedy = "Give every answer a score: pairs are made of answers with different scores"
            row.note(field, "there is no score", remedy)
        responses.append(row.response(f"{name}.response", field, text=text, given=given))
    return responses


def _items(row: RowReader, column: str) -> list[Any]:
    """Return a list of records; some libraries turn one into a record of lists."""
    value, items = row.get(column), []
    if isinstance(value, Mapping) and value and all(isinstance(v, list) for v in value.values()):
        lengths = {len(one) for one in value.values()}
        if len(lengths) > 1:
            problem = f"the lists of {', '.join(map(str, value))} have different lengths"
            row.note(column, problem, "Give every answer each of them")
            return []
        items = [{key: one[n] for key, one in value.items()} for n in range(lengths.pop())]
    elif isinstance(value, list | tuple):
        items = list(value)
    if not items:
        row.note(column, "found no list of answers", "Give a list of {'response': ...}")
    return items

"""Read lists of completions, each with a response and a judgment."""

from collections.abc import Callable, Mapping
from typing import Any

from ...records import Response
from ._reader import SCORES_REMEDY, RowReader
from ._values import describe

__all__ = ["read_completions"]


def read_completions(
    row: RowReader, judgment: str, score: Callable[[Any], Any], *, allow_unrated: bool = False
) -> list[Response]:
    """Return the responses in the column `completions` of a row with their scores.

    Args:
        row: The reader of the row.
        judgment: Key of the judgment in a completion.
        score: Maps a judgment to a number, or to `None` if there is none.
        allow_unrated: Whether responses may have no score.
    """
    items = _items(row)
    responses = []
    for number, item in enumerate(items):
        name = f"completions[{number}]"
        if not isinstance(item, Mapping):
            row.note(name, f"found {describe(item)}", "Use {'response': ...}")
            continue
        text = item.get("response")
        value = score(item.get(judgment))
        field = f"{name}.{judgment}"
        if value is None and len(items) > 1 and not allow_unrated:
            row.note(field, "there is no score", SCORES_REMEDY)
        responses.append(row.response(f"{name}.response", field, text=text, score=value))
    return responses


def _items(row: RowReader) -> list[Any]:
    """Return a list of records; some libraries convert it to a record of lists."""
    value, items = row.get("completions"), []
    if isinstance(value, Mapping) and value and all(isinstance(v, list) for v in value.values()):
        lengths = {len(items) for items in value.values()}
        if len(lengths) > 1:
            problem = f"the lists of {', '.join(map(str, value))} have different lengths"
            row.note("completions", problem, "Use lists with one entry per response")
            return []
        items = [{key: v[n] for key, v in value.items()} for n in range(lengths.pop())]
    elif isinstance(value, list | tuple):
        items = list(value)
    if not items:
        row.note("completions", "expected a list of responses", "Use a list of {'response': ...}")
    return items

"""One row of several that share prompt and media."""

import dataclasses
from collections.abc import Sequence

from ..records import Label, Pair, PreferenceRow, Response

__all__ = ["join_rows", "weigh_by_group"]

MAX_NAMES = 3
"""Number of rows in the name of a joined row; the others are counted."""


def join_rows(rows: Sequence[PreferenceRow]) -> PreferenceRow:
    """Return a row with the distinct responses, the pairs and the labels of all rows."""
    numbers: dict[tuple[str, float | None], int] = {}
    responses: list[Response] = []
    pairs: list[Pair] = []
    labels: list[Label] = []
    for row in rows:
        for response in row.responses:
            if (response.text, response.score) not in numbers:
                numbers[response.text, response.score] = len(responses)
                responses.append(dataclasses.replace(response, field=""))
        joined = [numbers[response.text, response.score] for response in row.responses]
        pairs += [
            Pair(joined[p.chosen], joined[p.rejected], p.weight, p.row_id or row.id)
            for p in row.pairs
        ]
        labels += [
            Label(joined[n.response], n.good, n.weight, n.row_id or row.id) for n in row.labels
        ]
    return dataclasses.replace(
        rows[0],
        id=_joined_name([row.id for row in rows]),
        where=_joined_name([row.where for row in rows]),
        responses=tuple(responses),
        pairs=tuple(pairs),
        labels=tuple(labels),
    )


def weigh_by_group(row: PreferenceRow) -> PreferenceRow:
    """Return a row with the weights of its pairs divided by their number."""
    pairs = tuple(
        dataclasses.replace(pair, weight=pair.weight / len(row.pairs)) for pair in row.pairs
    )
    return dataclasses.replace(row, pairs=pairs)


def _joined_name(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMES
    return " + ".join(names[:MAX_NAMES]) + (f" + {rest} more" if rest > 0 else "")

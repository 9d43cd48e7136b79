"""Join rows that share prompt and images, so that both are computed once for all their responses.

Joining moves pairs between micro-batches and does not change them: the loss of an optimizer step is
the mean over its pairs, however they are grouped. If rows are shuffled separately, as in TRL, the
pairs of a prompt end up in different steps; in a joined row, they are in the same step.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from ..errors import DataError, Problem
from ..records import Pair, PreferenceRow, Response

__all__ = ["group_by_prompt", "join_single_responses", "prompt_key", "weight_by_group"]

MAX_NAMES = 3
"""Number of rows in the name of a joined row; the others are counted."""


def group_by_prompt(rows: Sequence[PreferenceRow], *, max_pairs: int) -> list[PreferenceRow]:
    """Join rows that share source, domain, prompt and images.

    Args:
        rows: The rows; those without pairs are not joined.
        max_pairs: The maximum number of pairs of a joined row, so that it fits into a micro-batch.
    """
    joined: list[list[PreferenceRow]] = []
    open_group: dict[Hashable, list[PreferenceRow]] = {}
    pairs: dict[int, int] = defaultdict(int)
    for row in rows:
        key = _key(row)
        group = open_group.get(key)
        if group is None or not row.pairs or pairs[id(group)] + len(row.pairs) > max_pairs:
            group = []
            joined.append(group)
            if row.pairs:
                open_group[key] = group
        group.append(row)
        pairs[id(group)] += len(row.pairs)
    return [group[0] if len(group) == 1 else _join(group) for group in joined]


def join_single_responses(
    rows: Sequence[PreferenceRow],
    pairing: Callable[[Sequence[Response]], Sequence[tuple[int, int]]],
    problems: list[Problem],
) -> list[PreferenceRow]:
    """Join rows with one response each into one row per prompt, and form its pairs.

    Args:
        rows: Rows with one response.
        pairing: Returns pairs (chosen, rejected) of scored responses.
        problems: Receives the problems of joined rows.
    """
    by_prompt: dict[Hashable, list[PreferenceRow]] = defaultdict(list)
    for row in rows:
        try:
            by_prompt[_key(row)].append(row)
        except DataError as error:  # an image could not be downloaded
            problems.extend(error.problems)
    joined = []
    for group in by_prompt.values():
        row = group[0] if len(group) == 1 else _join(group)
        row_ids = {single.responses[0]: single.id for single in reversed(group)}
        ids = [row_ids[response] for response in row.responses]
        pairs = tuple(Pair(n, m, row_id=f"{ids[n]} + {ids[m]}") for n, m in pairing(row.responses))
        try:
            joined.append(dataclasses.replace(row, pairs=pairs))
        except DataError as error:
            problems.extend(error.problems)
    return joined


def weight_by_group(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Divide the weights of each row's pairs by their number, to weight all prompts equally."""
    return [
        dataclasses.replace(
            row,
            pairs=tuple(
                dataclasses.replace(pair, weight=pair.weight / len(row.pairs)) for pair in row.pairs
            ),
        )
        for row in rows
    ]


def prompt_key(row: PreferenceRow, media: Sequence[str]) -> Hashable:
    """Return a key that is equal for rows with the same prompt: the only definition of a prompt.

    Args:
        row: The row.
        media: The keys of its images and videos.
    """
    return row.messages, row.tools, tuple(media)


def _key(row: PreferenceRow) -> Hashable:
    media = tuple(item.key() for item in row.media)
    rendering = row.raw, row.tools, row.template_kwargs, row.reasoning
    return row.source, row.domain, row.messages, rendering, media


def _join(rows: Sequence[PreferenceRow]) -> PreferenceRow:
    """Return a row with the distinct responses and the pairs of all rows."""
    numbers: dict[tuple[str, float | None], int] = {}
    responses: list[Response] = []
    pairs = []
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
    return dataclasses.replace(
        rows[0],
        id=_joined_name([row.id for row in rows]),
        where=_joined_name([row.where for row in rows]),
        responses=tuple(responses),
        pairs=tuple(pairs),
    )


def _joined_name(names: Sequence[str]) -> str:
    rest = len(names) - MAX_NAMES
    return " + ".join(names[:MAX_NAMES]) + (f" + {rest} more" if rest > 0 else "")

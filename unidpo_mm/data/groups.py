"""Joins rows that share their prompt and images, so that both are run once for all their answers.

Joining moves pairs between micro-batches and changes no pair: the loss of an optimizer step is the
mean over its pairs whatever the grouping. Where rows are shuffled one by one, as TRL does, pairs of
one prompt land in different steps; joined, they stand in the same one.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from ..errors import DataError, Problem
from ..records import Pair, PreferenceRow, Response

__all__ = ["group_by_prompt", "join_answers", "prompt_key", "weight_by_group"]

NAMED = 3
"""Rows that a joined row names in messages; the rest are counted."""


def group_by_prompt(rows: Sequence[PreferenceRow], *, max_pairs: int) -> list[PreferenceRow]:
    """Return the rows with those joined that share source, domain, prompt and images.

    Args:
        rows: Rows with pairs; a row without pairs stays as it is.
        max_pairs: Rows are joined up to so many pairs, so that no group outgrows a micro-batch.
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


def join_answers(
    rows: Sequence[PreferenceRow],
    pairing: Callable[[Sequence[Response]], Sequence[tuple[int, int]]],
    problems: list[Problem],
) -> list[PreferenceRow]:
    """Return one row a prompt, of rows that hold one of its answers each, with its pairs.

    Args:
        rows: Rows of one answer.
        pairing: Makes pairs (chosen, rejected) of scored answers.
        problems: What is wrong with a joined row is added to it.
    """
    by_prompt: dict[Hashable, list[PreferenceRow]] = defaultdict(list)
    for row in rows:
        try:
            by_prompt[_key(row)].append(row)
        except DataError as error:  # of an image that had to be fetched
            problems.extend(error.problems)
    joined = []
    for group in by_prompt.values():
        row = group[0] if len(group) == 1 else _join(group)
        pairs = tuple(Pair(*pair) for pair in pairing(row.responses))
        try:
            joined.append(dataclasses.replace(row, pairs=pairs))
        except DataError as error:
            problems.extend(error.problems)
    return joined


def weight_by_group(rows: Sequence[PreferenceRow]) -> list[PreferenceRow]:
    """Return the rows with the weights of each row's pairs divided by their number.

    Every prompt then counts alike, however many pairs its answers make.
    """
    return [
        dataclasses.replace(
            row,
            pairs=tuple(
                dataclasses.replace(pair, weight=pair.weight / len(row.pairs)) for pair in row.pairs
            ),
        )
        for row in rows
    ]


def prompt_key(row: PreferenceRow, images: Sequence[str]) -> Hashable:
    """Return what is equal for rows that ask the model the same: the one definition of a prompt.

    Args:
        row: The row.
        images: Content hashes of its images.
    """
    return row.messages, row.tools, tuple(images)


def _key(row: PreferenceRow) -> Hashable:
    images = tuple(image.key() for image in row.images)
    rendering = row.raw, row.tools, row.template_kwargs, row.reasoning
    return row.source, row.domain, row.messages, rendering, images


def _join(rows: Sequence[PreferenceRow]) -> PreferenceRow:
    """Return one row with the answers of all, each once, and the pairs of all."""
    numbers: dict[tuple[str, float | None], int] = {}
    responses: list[Response] = []
    pairs = []
    for row in rows:
        for response in row.responses:
            if (response.text, response.score) not in numbers:
                numbers[response.text, response.score] = len(responses)
                responses.append(dataclasses.replace(response, field=""))
        own = [numbers[response.text, response.score] for response in row.responses]
        pairs += [Pair(own[pair.chosen], own[pair.rejected], pair.weight) for pair in row.pairs]
    return dataclasses.replace(
        rows[0],
        id=_named([row.id for row in rows]),
        where=_named([row.where for row in rows]),
        responses=tuple(responses),
        pairs=tuple(pairs),
    )


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED
    return " + ".join(names[:NAMED]) + (f" + {rest} more" if rest > 0 else "")

"""Join rows that share prompt and images, so that both are computed once for all their responses.

Joining moves pairs between micro-batches and does not change them: the loss of an optimizer step is
the mean over its pairs, however they are grouped. If rows are shuffled separately, as in TRL, the
pairs of a prompt end up in different steps; in a joined row, they are in the same step.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import numpy

from ..config import SourceOptions
from ..errors import DataError, Problem
from ..records import Pair, PreferenceRow, Response
from .columns import RowColumns
from .joining import join_rows, weigh_by_group
from .row_table import RowTable, columns_of, concatenated, table_of, take_rows

__all__ = [
    "group_by_prompt",
    "join_single_responses",
    "prompt_key",
    "repeat_problems",
    "repeat_sources",
    "rows_before",
    "train_on_labels",
    "train_on_responses",
    "weight_by_group",
]


def group_by_prompt(
    rows: Sequence[PreferenceRow], *, max_units: int, labels: bool = False
) -> Sequence[PreferenceRow]:
    """Join rows that share source, domain, prompt and images.

    Args:
        rows: The rows; those without units are not joined.
        max_units: The maximum number of units of a joined row, so that it fits into a micro-batch.
        labels: Whether units are labeled responses; otherwise they are pairs.
    """
    table = table_of(rows)
    counts = table.columns.labeled if labels else table.columns.pairs
    keys = zip(table.keys("group"), table.media_keys, strict=True)
    joined: list[list[int]] = []
    open_group: dict[Hashable, int] = {}
    units: list[int] = []
    for number, (key, count) in enumerate(zip(keys, counts.tolist(), strict=True)):
        group = open_group.get(key)
        if group is None or not count or units[group] + count > max_units:
            group = len(joined)
            joined.append([])
            units.append(0)
            if count:
                open_group[key] = group
        joined[group].append(number)
        units[group] += count
    if isinstance(rows, RowTable):
        return rows.joined(joined)
    groups = ([rows[number] for number in group] for group in joined)
    return [group[0] if len(group) == 1 else join_rows(group) for group in groups]


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
        row = group[0] if len(group) == 1 else join_rows(group)
        row_ids = {single.responses[0]: single.id for single in reversed(group)}
        ids = [row_ids[response] for response in row.responses]
        pairs = tuple(Pair(n, m, row_id=f"{ids[n]} + {ids[m]}") for n, m in pairing(row.responses))
        try:
            joined.append(dataclasses.replace(row, pairs=pairs))
        except DataError as error:
            problems.extend(error.problems)
    return joined


def weight_by_group(rows: Sequence[PreferenceRow]) -> Sequence[PreferenceRow]:
    """Divide the weights of each row's pairs by their number, to weight all prompts equally."""
    return (
        rows.weighted_by_group() if isinstance(rows, RowTable) else list(map(weigh_by_group, rows))
    )


def repeat_sources(
    rows: Sequence[PreferenceRow], repeats: Mapping[str, int]
) -> Sequence[PreferenceRow]:
    """Return rows with those of each source as often as `repeats` says."""
    if all(number == 1 for number in repeats.values()):
        return rows
    columns = columns_of(rows)
    times = numpy.array([repeats.get(name, 1) for name in columns.source_names])
    return take_rows(rows, numpy.repeat(numpy.arange(len(rows)), times[columns.source]).tolist())


def repeat_problems(sources: Sequence[SourceOptions]) -> Iterator[Problem]:
    """Yield a problem for sources with the same name and different values of `repeat`."""
    repeats: dict[str, int] = {}
    for source in sources:
        first = repeats.setdefault(source.source_name, source.repeat)
        if first != source.repeat:
            where = f"data source '{source.source_name}', repeat"
            text = f"two sources have this name and different values ({first}, {source.repeat})"
            yield Problem(where, text, "Set a different 'name' for one of them")


def train_on_responses(rows: Sequence[PreferenceRow]) -> Sequence[PreferenceRow]:
    """Return the rows that have target responses, with only these responses."""
    if isinstance(rows, RowTable):
        return rows.for_responses()
    return [row.for_responses() for row in rows if row.targets()]


def train_on_labels(
    rows: Sequence[PreferenceRow],
    *,
    mismatched: bool,
    others: Sequence[PreferenceRow] = (),
) -> Sequence[PreferenceRow]:
    """Return the rows for losses of labeled responses, see `PreferenceRow.for_labels`.

    Args:
        rows: The rows.
        mismatched: Whether each row gets a mismatched response: the first response of the nearest
            row before it that has another prompt. The first row follows the last one.
        others: Rows from which the response is taken if all rows have the same prompt.

    Raises:
        DataError: If all rows have the same prompt, so that there is no response to another one.
    """
    table = table_of(rows)
    if not mismatched or not len(table):
        return table.with_partners([-1] * len(table), _with_labels, RowColumns.for_labels)
    keys = _prompt_keys(table)
    partners = rows_before(keys)
    if partners[0] >= 0:
        return table.with_partners(partners, _with_labels, RowColumns.for_labels)
    other_keys = _prompt_keys(table_of(others))
    other = next((n for n, key in enumerate(other_keys) if key != keys[0]), None)
    if other is None:
        text = "all rows have the same prompt, so that no response belongs to another one"
        remedy = "Add rows with other prompts, or choose parameters of the loss without such "
        remedy += "responses (loss.kl: none)"
        raise DataError(Problem(table[0].where, text, remedy))
    both = table_of(concatenated([rows, take_rows(others, [other])]))
    numbers = [len(table)] * len(table) + [0]
    with_partners = both.with_partners(numbers, _with_labels, RowColumns.for_labels)
    return with_partners.take(range(len(table)))


def _prompt_keys(table: RowTable) -> list[Hashable]:
    return list(zip(table.keys("prompt"), table.media_keys, strict=True))


def rows_before(keys: Sequence[Hashable]) -> list[int]:
    """Return for each row the nearest one before it with another key; -1 if there is none.

    The rows are taken as a circle, so that only rows with a common key have none.
    """
    before = next((n for n in reversed(range(len(keys))) if keys[n] != keys[0]), -1)
    result = []
    for number, key in enumerate(keys):
        if number and key != keys[number - 1]:
            before = number - 1
        result.append(before)
    return result


def _with_labels(row: PreferenceRow, partner: PreferenceRow | None) -> PreferenceRow:
    return row.for_labels(None if partner is None else partner.responses[0])


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

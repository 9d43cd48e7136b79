"""Held-out pairs and reward benchmarks as rows of the core, with the groups of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unidpo_mm.data.load import SourceFile, load_rows, read_records
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import PreferenceRow

from ..data.dataset import file_hash
from ..data.json_files import JsonRow, records_of

__all__ = ["PairSet", "pair_ids", "reward_pairs", "training_pairs"]


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Rows with pairs.

    Attributes:
        path: The file.
        sha256: Of its content.
        rows: Each with at least one pair.
        groups: Row id -> label -> value, beside the domain.
        units: Row id -> the pairs that are right together; rows alone have none.
        notes: What should be said.
    """

    path: Path
    sha256: str
    rows: Sequence[PreferenceRow]
    groups: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def training_pairs(path: Path, images: Path | None) -> PairSet:
    """Returns the pairs of a file in any layout that the trainer reads.

    Raises:
        DataError: With every problem of every row.
    """
    folder = None if images is None else str(images)
    rows = [
        row
        for row in load_rows([SourceFile(path=str(path), images=folder, images_outside=True)])
        if row.pairs
    ]
    if not rows:
        raise DataError(Problem(str(path), "no row has a pair", "Give rows with two answers"))
    return PairSet(path=path, sha256=file_hash([path]), rows=rows)


def pair_ids(row: PreferenceRow) -> list[str]:
    """Returns the ids of a row's pairs: its own, with a number where it has several."""
    if len(row.pairs) == 1:
        return [row.id]
    return [f"{row.id}#{number}" for number in range(len(row.pairs))]


Reader = Callable[[JsonRow], Mapping[str, Any] | None]
"""A record of a reward benchmark -> prompt, chosen, rejected, images and groups; None to leave
it out."""


def reward_pairs(
    path: Path, images: Path | None, read: Reader, *, group: str = "group", left_out: str = ""
) -> PairSet:
    """Returns the pairs of a reward benchmark.

    Args:
        path: Its file.
        images: Folder of its pictures; None for that of the file.
        read: Makes a pair of a record.
        group: What the groups are called.
        left_out: Why records may be left out, for the note.

    Raises:
        DataError: With every problem of every record.
    """
    problems: list[Problem] = []
    records, groups, units, absent = [], {}, {}, 0
    for number, row in enumerate(records_of([path], problems), start=1):
        made = read(row)
        problems += row.problems
        if made is None or row.problems:
            absent += made is None and not row.problems
            continue
        own = str(number)
        names = ("prompt", "chosen", "rejected", "images")
        records.append({"id": own} | {name: made[name] for name in names})
        groups[own] = {group: str(made["group"])}
        units[own] = str(made.get("unit", own))
    folder = str(images or path.parent)
    source = SourceFile(path=str(path), images=folder, images_outside=True)
    loaded = read_records(records, source)
    problems += loaded.problems
    if not records and not problems:
        problems.append(Problem(str(path), "it holds no pair", "Give the benchmark's file"))
    if problems:
        raise DataError(problems)
    notes = [f"{absent} rows are left out: {left_out}"] if absent else []
    return PairSet(
        path=path,
        sha256=file_hash([path]),
        rows=loaded.rows,
        groups=groups,
        units=units,
        notes=notes,
    )

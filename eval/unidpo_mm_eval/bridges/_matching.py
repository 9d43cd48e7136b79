"""Gives imported responses the ids of the data, where a tool wrote down row numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.samples import Prediction
from . import Imported

__all__ = ["matched"]

ANSWERS = ("answer", "label", "target")


def matched(
    found: Sequence[Imported], ids: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> list[Prediction]:
    """Returns the responses with the ids of the data.

    A number stands for the row only where what the tool logged is what the row asks: a file in
    another order would else be scored row by row, and wrongly.

    Args:
        found: The responses.
        ids: Of the data's rows.
        records: The rows.

    Raises:
        DataError: With each response of no row, and each that another question was asked for.
    """
    known, problems, kept = set(ids), [], []
    for one in found:
        said = one.prediction
        if not one.by_row:
            if said.id not in known:
                text = f"the data have no row '{said.id}'"
                problems.append(Problem(said.where, text, "Name the data it was made of"))
            kept.append(said)
            continue
        row = int(said.id) if said.id.isdecimal() else len(ids)
        if row >= len(ids):
            text = f"the data have no row number {said.id}, they have {len(ids)}"
            problems.append(Problem(said.where, text, "Name the data it was made of"))
        elif not _asks(records[row], one):
            text = f"it answers another question than row number {row} of the data asks"
            problems.append(Problem(said.where, text, "Name the data it was made of, in its order"))
        else:
            kept.append(replace(said, id=ids[row]))
    if problems:
        raise DataError(problems)
    return kept


def _asks(record: Mapping[str, Any], one: Imported) -> bool:
    """Says whether what was logged holds the row's question, or its answer where none was."""
    question = _plain(record.get("question") or record.get("text") or record.get("problem"))
    if question and one.question:
        return question in _plain(one.question)
    answer = next((_plain(record[name]) for name in ANSWERS if record.get(name)), "")
    return bool(answer) and answer == _plain(one.target)


def _plain(value: Any) -> str:
    return " ".join(str(value or "").split()).lower()

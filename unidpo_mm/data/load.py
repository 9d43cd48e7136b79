"""Reads data files into rows; every problem of every file is reported, none is skipped over."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from ..plugins import format_modules
from ..records import Domain, PreferenceRow
from .formats import Context, Format

__all__ = ["SourceFile", "load_rows", "read_records", "read_sources", "rows_from_records"]

Record = tuple[int, Any]
"""Row number from 1 and the record, or a Problem in its place."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One source of data.

    Attributes:
        path: A JSON, JSONL or Parquet file, a folder of Parquet files, or a data set on the hub.
        images: Folder of relative picture paths; None for the folder of the file.
        name: Name of the source; None for the file's name.
        domain: Domain of all its rows; None to tell it row by row.
        split: Split of a data set on the hub.
        scale: Declared bounds of its scores; None if they are not declared.
        judge: Who gave the scores, for the record.
        needs_scores: The loss needs a score for every answer of a pair.
    """

    path: str
    images: str | None = None
    name: str | None = None
    domain: Domain | None = None
    split: str | None = None
    scale: tuple[float, float] | None = None
    judge: str | None = None
    needs_scores: bool = False

    @property
    def source_name(self) -> str:
        """The name under which the source appears in messages and settings."""
        return self.name or Path(self.path).stem


def load_rows(
    sources: Sequence[SourceFile], *, score_scale: tuple[float, float] | None = None
) -> list[PreferenceRow]:
    """Returns the rows of all sources.

    Args:
        sources: What to read, in order.
        score_scale: The unit of the loss's eta and tau_good; scores of a source with a declared
            scale are mapped to it. Observed ranges never are.

    Raises:
        DataError: With every problem of every file.
    """
    rows, problems = read_sources(sources, score_scale=score_scale)
    if problems:
        raise DataError(problems)
    return rows


def read_sources(
    sources: Sequence[SourceFile], *, score_scale: tuple[float, float] | None = None
) -> tuple[list[PreferenceRow], list[Problem]]:
    """Returns the rows that could be read and the problems with the others; see `load_rows`."""
    rows: list[PreferenceRow] = []
    problems: list[Problem] = []
    for source in sources:
        try:
            found, wrong = _read_source(source, score_scale)
        except DataError as error:
            problems += error.problems
            continue
        rows += found
        problems += wrong
    return rows, problems + _duplicate_ids(rows)


def rows_from_records(
    records: Iterable[Any], *, source: str = "data", images: Path | None = None
) -> list[PreferenceRow]:
    """Returns the rows of records in memory: dicts, a `datasets.Dataset`, or rows as they are.

    Raises:
        DataError: With every problem of every record.
    """
    rows, problems = read_records(records, source=source, images=images)
    if problems:
        raise DataError(problems)
    return rows


def read_records(
    records: Iterable[Any],
    *,
    source: str = "data",
    images: Path | None = None,
    needs_scores: bool = False,
) -> tuple[list[PreferenceRow], list[Problem]]:
    """Returns the rows that could be read and the problems with the others."""
    numbered = list(enumerate(records, start=1))
    ready = [record for _, record in numbered if isinstance(record, PreferenceRow)]
    others = [(n, record) for n, record in numbered if not isinstance(record, PreferenceRow)]
    declared = SourceFile(path=source, images=str(images or Path()), needs_scores=needs_scores)
    rows, problems = _parse(others, declared, None, place=f"data set '{source}'")
    return ready + rows, problems + _duplicate_ids(ready + rows)


def _read_source(
    source: SourceFile, score_scale: tuple[float, float] | None
) -> tuple[list[PreferenceRow], list[Problem]]:
    records = _records(source)
    if not records:
        raise DataError(Problem(source.path, "the file holds no row", "Give a file with rows"))
    return _parse(records, source, score_scale, place=source.path)


def _parse(
    records: Sequence[Record],
    source: SourceFile,
    score_scale: tuple[float, float] | None,
    *,
    place: str,
) -> tuple[list[PreferenceRow], list[Problem]]:
    folder = Path(source.images) if source.images is not None else Path(source.path).parent
    scale = _score_map(source, score_scale)
    rows: list[PreferenceRow] = []
    problems: list[Problem] = []
    for number, record in records:
        where = f"{place} row {number}"
        if isinstance(record, Problem):
            problems.append(record)
            continue
        context = Context(
            source=source.source_name,
            where=where,
            number=number,
            images=folder,
            domain=source.domain,
            scale=scale,
            needs_scores=source.needs_scores,
        )
        try:
            rows.append(_format_of(record, where).parse(record, context))
        except DataError as error:
            problems += error.problems
    return rows, problems


def _format_of(record: Any, where: str) -> Format:
    """Returns the format whose columns a record has.

    Raises:
        DataError: If there is none; lists the columns found and what each format needs.
    """
    if not isinstance(record, Mapping):
        found = f"the row is {type(record).__name__}"
        raise DataError(Problem(where, found, "Write each row as an object with named fields"))
    columns = {name for name, value in record.items() if value is not None}
    formats: list[Format] = [module.FORMAT for module in format_modules().values()]
    fitting = [format_ for format_ in formats if format_.required <= columns]
    if fitting:
        return max(fitting, key=lambda format_: len(format_.required))
    if {"completion", "label"} <= columns:
        found = "single answers labelled good or bad (the layout of KTO) are not understood yet"
        remedy = "Give pairs: prompt, chosen and rejected"
        raise DataError(Problem(f"{where}, field 'label'", found, remedy))
    nearest = max(formats, key=lambda format_: len(format_.required & columns))
    missing = sorted(nearest.required - columns)
    field = f", field '{missing[0]}'" if len(missing) == 1 else ""
    needs = "; ".join(f"{f.name}: {', '.join(sorted(f.required))}" for f in formats)
    raise DataError(
        Problem(
            f"{where}{field}",
            f"the columns {', '.join(sorted(columns)) or '(none)'} fit no format; "
            f"{', '.join(missing)} is missing for '{nearest.name}'",
            f"Name the columns as one of these formats does ({needs})",
        )
    )


def _score_map(
    source: SourceFile, score_scale: tuple[float, float] | None
) -> Callable[[float], float]:
    """Returns the map from a source's declared scale to the scale of the run."""
    if source.scale is None:
        return lambda score: score
    low, high = source.scale
    to_low, to_high = score_scale or source.scale

    def mapped(score: float) -> float:
        if not low <= score <= high:
            raise ValueError(f"the score {score} lies outside the declared scale [{low}, {high}]")
        return to_low + (score - low) * (to_high - to_low) / (high - low)

    return mapped


def _records(source: SourceFile) -> list[Record]:
    path = Path(source.path)
    if path.exists() and source.split not in (None, "train"):
        found = f"split '{source.split}' is asked for and a file or folder has none"
        raise DataError(Problem(str(path), found, "Name the file that holds it, without a split"))
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".parquet": _parquet}
    if path.is_file() and path.suffix in readers:
        return list(readers[path.suffix](path))
    if path.is_file():
        found = f"'{path.suffix}' is no format of data files"
        raise DataError(Problem(str(path), found, "Give a .json, .jsonl or .parquet file"))
    if path.is_dir():
        files = sorted(path.glob("*.parquet"))
        if not files:
            raise DataError(Problem(str(path), "the folder holds no Parquet file", "Name a file"))
        records = [record for file in files for _, record in _parquet(file)]
        return list(enumerate(records, start=1))
    return list(_hub(source))


def _jsonl(path: Path) -> Iterator[Record]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                found = f"the line is no JSON ({error.msg} at column {error.colno})"
                remedy = "Write one JSON object a line"
                yield number, Problem(f"{path} row {number}", found, remedy)
            except UnicodeDecodeError as error:
                found = f"the line is no UTF-8 ({error.reason} at byte {error.start})"
                yield number, Problem(f"{path} row {number}", found, "Write the file as UTF-8")


def _json(path: Path) -> Iterator[Record]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        found = f"the file is no JSON ({error.msg} at line {error.lineno})"
        remedy = "Write a list of objects, or one object a line in a .jsonl file"
        raise DataError(Problem(str(path), found, remedy)) from error
    except UnicodeDecodeError as error:
        found = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), found, "Write the file as UTF-8")) from error
    if not isinstance(content, list):
        found = f"the file holds {type(content).__name__}"
        raise DataError(Problem(str(path), found, "Write a list of objects"))
    yield from enumerate(content, start=1)


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        remedy = "Write the file again"
        raise DataError(Problem(str(path), f"no Parquet file ({error})", remedy)) from error
    yield from enumerate(table.to_pylist(), start=1)


def _hub(source: SourceFile) -> Iterator[Record]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(source.path, split=source.split or "train")
    except Exception as error:  # the library raises many kinds for a name it cannot reach
        found = f"neither a file nor a data set that can be reached ({error})"
        raise DataError(Problem(source.path, found, "Repair the path")) from error
    yield from enumerate(dataset, start=1)


def _duplicate_ids(rows: Sequence[PreferenceRow]) -> list[Problem]:
    first: dict[str, PreferenceRow] = {}
    problems = []
    for row in rows:
        before = first.setdefault(row.id, row)
        if before is not row:
            found = f"the id '{row.id}' is taken by {before.where}"
            remedy = "Give each row its own id, or leave the ids out"
            problems.append(Problem(f"{row.where}, field 'id'", found, remedy))
    return problems

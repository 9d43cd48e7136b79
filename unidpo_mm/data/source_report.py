"""The result of reading sources: rows, counts and problems."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..config import ScoreOptions
from ..errors import Problem, counted
from ..records import PreferenceRow
from .scores import PairCounts

__all__ = ["Loaded", "SourceReport"]


@dataclass
class SourceReport:
    """Counts from reading a source.

    Attributes:
        source: Name of the source.
        records: Number of records.
        refused: Number of records with problems.
        rows: Number of rows read from them.
        formats: Format -> number of its records.
        columns: Columns that these formats read.
        unread: Column -> number of records in which it has a value that their format does not read.
        pairs: Counts from selecting pairs.
        score_options: The options for selecting pairs.
        stripped: Number of responses whose reasoning was removed.
    """

    source: str
    records: int = 0
    refused: int = 0
    rows: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    columns: set[str] = field(default_factory=set)
    unread: Counter[str] = field(default_factory=Counter)
    pairs: PairCounts = field(default_factory=PairCounts)
    score_options: ScoreOptions = field(default_factory=ScoreOptions)
    stripped: int = 0

    def sentences(self) -> list[str]:
        """Return notes about the source for the user, as sentences."""
        sentences = self.pairs.sentences(self.score_options)
        unread = [f"{name} ({rows:,})" for name, rows in self.unread.items() if rows]
        if unread:
            sentences.append(f"unused columns: {', '.join(unread)}")
        for name in filter(self.unread.get, self.unread):
            if column := similar_column(name, self.columns):
                sentences.append(
                    f"if the unused column '{name}' is '{column}', set the source's columns to "
                    f"{{{column}: {name}}}"
                )
        if self.stripped:
            sentences.append(f"reasoning was removed from {counted(self.stripped, 'response')}")
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Return the counts as values of JSON, without the options."""
        content = {part.name: getattr(self, part.name) for part in fields(self)}
        del content["score_options"]
        return {**content, "columns": sorted(self.columns), "pairs": asdict(self.pairs)}

    @classmethod
    def from_json(cls, content: dict[str, Any], options: ScoreOptions) -> "SourceReport":
        """Return the report that `to_json` wrote, with the options of its source."""
        counts = {name: Counter(content[name]) for name in ("formats", "unread")}
        columns, pairs = set(content["columns"]), PairCounts(**content["pairs"])
        changed = {**counts, "columns": columns, "pairs": pairs, "score_options": options}
        return cls(**{**content, **changed})


def similar_column(name: str, columns: Iterable[str]) -> str | None:
    """Return the column that a name misspells or whose words it has in another order."""

    def words(column: str) -> str:
        return " ".join(sorted(map(str.lower, re.findall("[A-Z]?[a-z]+", column))))

    spelled = {words(column): column for column in sorted(columns) if column != name}
    near = difflib.get_close_matches(words(name), spelled, n=1, cutoff=0.85)
    return spelled[near[0]] if near else None


@dataclass
class Loaded:
    """Rows of sources, and the problems of records that could not be read.

    Attributes:
        rows: The rows.
        problems: All problems.
        source_problems: The part of `problems` that remains if invalid records are skipped.
        reports: One report per source.
    """

    rows: Sequence[PreferenceRow] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    source_problems: list[Problem] = field(default_factory=list)
    reports: list[SourceReport] = field(default_factory=list)

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Add problems that remain if invalid records are skipped."""
        new = list(problems)
        self.problems += new
        self.source_problems += new

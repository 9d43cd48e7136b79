"""Locations of data sources, and what is listed there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DataError, Problem
from .files import Record

__all__ = ["SourceListing", "SourceLocation"]


@dataclass(frozen=True, kw_only=True)
class SourceLocation:
    """Location of the records of a source.

    Attributes:
        path: A JSON, JSONL (both also as .gz), Parquet or Arrow file, a directory of such files or
            one saved by `datasets`, a registry `dataset_info.json`, or a data set on a hub.
        split: Split of a directory or of a data set on a hub; `None` for ``train``.
        subset: Configuration of a data set on a hub, or name of an entry of a registry.
        streaming: Whether a data set on a hub is read without downloading all of it first.
    """

    path: str
    split: str | None = None
    subset: str | None = None
    streaming: bool = False

    def refuse(self, **reasons: str) -> None:
        """Raise a `DataError` with a reason if a split or subset is set that does not exist.

        The split ``train`` is allowed; it stands for all rows.
        """
        for name, reason in reasons.items():
            value = getattr(self, name)
            if value is not None and not (name == "split" and value == "train"):
                problem = f"{name} '{value}' was requested, but {reason}"
                raise DataError(Problem(self.path, problem, f"Remove '{name}' from the source"))

    def chosen_split(self, names: Iterable[str], aliases: Mapping[str, str] | None = None) -> str:
        """Return the one of the existing splits that is requested, also by an alias.

        Raises:
            DataError: If it does not exist.
        """
        split, existing = self.split or "train", list(names)
        split = split if split in existing else (aliases or {}).get(split, split)
        if split not in existing:
            problem = f"there is no split '{split}' among {', '.join(existing)}"
            remedy = "Set the source's 'split' to one of them"
            raise DataError(Problem(self.path, problem, remedy))
        return split


@dataclass(frozen=True)
class SourceListing:
    """Records of a source, and what a registry declares about them.

    Attributes:
        records: The records.
        columns: Column of the format -> its name in the records.
        format: Name of the format; `None` to detect it from the columns.
        unmapped: Columns of the format that are ignored because the registry does not map them.
        folder: Directory that relative image paths start from; `None` for that of the path.
        files: Files that the records depend on; `None` if these are not known.
        fingerprint: Of a data set of `datasets`: what identifies its records, besides the files.
    """

    records: Iterator[Record]
    columns: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    unmapped: frozenset[str] = frozenset()
    folder: Path | None = None
    files: tuple[Path, ...] | None = None
    fingerprint: str | None = None

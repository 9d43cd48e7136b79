"""A benchmark's data as they were read, and the checks that hold for every layout."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from .samples import Sample

__all__ = ["DataSet", "data_set", "file_hash"]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """The samples of a benchmark.

    Attributes:
        path: The file or folder.
        sha256: Of its content; two results are compared only where it is equal.
        samples: In the order of the file.
        dropped: Ids of rows that are left out since they have no picture.
        notes: What the reader wants said.
        references: Rows whose picture is that of another row.
    """

    path: Path
    sha256: str
    samples: tuple[Sample, ...]
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    references: int = 0


def data_set(
    path: Path,
    samples: Iterable[Sample],
    *,
    files: Sequence[Path],
    problems: Sequence[Problem] = (),
    dropped: Sequence[str] = (),
    notes: Sequence[str] = (),
    references: int = 0,
) -> DataSet:
    """Returns a data set after the checks that hold for every layout.

    Args:
        path: The file or folder.
        samples: What was read.
        files: The files that were read, for the hash.
        problems: What was wrong with other rows.
        dropped: Ids of rows without picture.
        notes: What should be said.
        references: Rows whose picture is that of another row.

    Raises:
        DataError: With these problems, and one for each id that stands twice; or if nothing was
            read.
    """
    samples = tuple(samples)
    problems = [*problems, *_twice(samples)]
    if not samples and not problems:
        problems.append(Problem(str(path), "there is no row to score", "Give a file with rows"))
    if problems:
        raise DataError(problems)
    return DataSet(
        path=path,
        sha256=file_hash(files),
        samples=samples,
        dropped=tuple(dropped),
        notes=tuple(notes),
        references=references,
    )


def file_hash(files: Sequence[Path]) -> str:
    """Returns the hash of a file's content, or of the contents of several in their order."""
    digest = hashlib.sha256()
    for file in files:
        if len(files) > 1:
            digest.update(file.name.encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _twice(samples: Sequence[Sample]) -> list[Problem]:
    first: dict[str, Sample] = {}
    found = []
    for sample in samples:
        before = first.setdefault(sample.id, sample)
        if before is not sample:
            text = f"the id '{sample.id}' is taken by {before.where}"
            found.append(Problem(sample.where, text, "Give each row its own id"))
    return found

"""A benchmark's samples as read from its files, and the checks that apply to every file format."""

import dataclasses
import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from .samples import Sample


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """The samples of a benchmark."""

    path: Path  # The file or directory
    sha256: str  # Hash of the content; results are compared only if it is equal
    samples: tuple[Sample, ...]  # In the order of the file
    dropped: tuple[str, ...] = ()  # Ids of rows that are not scored because they have no image
    notes: tuple[str, ...] = ()  # Warnings of the reader
    references: int = 0  # Number of rows whose image cell refers to another row


def build_dataset(
    path: Path,
    samples: Iterable[Sample],
    *,
    files: Sequence[Path],
    problems: Sequence[Problem] = (),
    dropped: Sequence[str] = (),
    notes: Sequence[str] = (),
    references: int = 0,
) -> Dataset:
    """Build a data set from the samples of some files.

    Raises:
        DataError: With `problems` and one problem per duplicate id, or if there are no samples.
    """
    samples = tuple(samples)
    first: dict[str, Sample] = {}
    problems = [
        *problems,
        *(
            Problem(
                sample.where,
                f"duplicate id '{sample.id}', already used by {first[sample.id].where}",
                "Use a unique id per row",
            )
            for sample in samples
            if first.setdefault(sample.id, sample) is not sample
        ),
    ]
    if not samples and not problems:
        problems.append(Problem(str(path), "the file contains no rows", "Use a file with rows"))
    if problems:
        raise DataError(problems)
    return Dataset(
        path=path,
        sha256=file_hash(files),
        samples=samples,
        dropped=tuple(dropped),
        notes=tuple(notes),
        references=references,
    )


def draw_clusters(data: Dataset, count: int, *, seed: int = 0) -> Dataset:
    """Return the samples of `count` random clusters, in the order of the file.

    Clusters stay complete, so pairs of questions, circular copies and sets of figures are never
    split. Data with no more clusters than that are returned unchanged.
    """
    names = sorted({sample.cluster for sample in data.samples})
    if count >= len(names):
        return data
    drawn = set(random.Random(seed).sample(names, count))
    note = f"{count} of {len(names)} clusters (seed {seed}): not comparable with the full data"
    return dataclasses.replace(
        data,
        samples=tuple(sample for sample in data.samples if sample.cluster in drawn),
        dropped=(*data.dropped, *(s.id for s in data.samples if s.cluster not in drawn)),
        sha256=f"{data.sha256}-{count}-{seed}",
        notes=(*data.notes, note),
    )


def file_hash(files: Sequence[Path]) -> str:
    """Return the hash of a file's content, or of the names and contents of several files."""
    digest = hashlib.sha256()
    for file in files:
        if len(files) > 1:
            digest.update(file.name.encode())
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()

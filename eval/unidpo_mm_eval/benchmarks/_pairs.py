"""Shared by sets of pairs, which `eval prefs` scores by log-probabilities."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from unidpo_mm.data.images import identity

from ..data.dataset import DataSet
from ..data.samples import Picture, Sample
from . import Benchmark
from ._pair_metrics import RULES
from ._pair_sets import PairSet, pair_ids

__all__ = ["pair_benchmark"]


def pair_benchmark(
    name: str,
    title: str,
    pairs: Callable[[Path, Path | None], PairSet],
    *,
    rows: int | None,
    files: tuple[str, ...],
    layout: str,
) -> Benchmark:
    """Returns a benchmark of pairs.

    Args:
        name: Of its file.
        title: As people call it.
        pairs: File and folder of pictures -> its pairs.
        rows: How many a whole file has; None where any number will do.
        files: What it is called where it is downloaded.
        layout: For messages.
    """
    return Benchmark(
        name=name,
        title=title,
        read=partial(_read, pairs),
        families={"implicit-reward": RULES},
        expected={} if rows is None else {"rows": rows},
        files=files,
        layouts=(layout,),
        pairs=pairs,
    )


def _read(pairs: Callable[[Path, Path | None], PairSet], path: Path, pictures: bool) -> DataSet:
    found = pairs(path, None)
    samples = tuple(
        Sample(
            id=own,
            where=row.where,
            question=row.messages[-1].text,
            labels={"domain": row.domain, **found.groups.get(row.id, {})},
            pictures=tuple(Picture(identity(one), one if pictures else None) for one in row.images),
        )
        for row in found.rows
        for own in pair_ids(row)
    )
    return DataSet(path=path, sha256=found.sha256, samples=samples, notes=tuple(found.notes))

"""A fixed part of a data set, for a look in between; never comparable with the whole."""

import dataclasses
import random

from .dataset import DataSet

__all__ = ["subset"]


def subset(data: DataSet, clusters: int, *, seed: int = 0) -> DataSet:
    """Returns the samples of some clusters, in the order of the file.

    Clusters stay whole: pairs of questions, circular copies and sets of figures are never torn.

    Args:
        data: The whole.
        clusters: How many; the whole is returned where it has no more.
        seed: Draws them.
    """
    names = sorted({sample.cluster for sample in data.samples})
    if clusters >= len(names):
        return data
    drawn = set(random.Random(seed).sample(names, clusters))
    note = f"{clusters} of {len(names)} clusters, drawn by seed {seed}: not comparable with all"
    return dataclasses.replace(
        data,
        samples=tuple(sample for sample in data.samples if sample.cluster in drawn),
        dropped=(*data.dropped, *(one.id for one in data.samples if one.cluster not in drawn)),
        sha256=f"{data.sha256}-{clusters}-{seed}",
        notes=(*data.notes, note),
    )

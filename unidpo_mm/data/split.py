"""Split rows into training and held-out ones by prompt and image, never by pair."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence

from ..records import PreferenceRow

__all__ = ["split_rows"]


def split_rows(
    rows: Sequence[PreferenceRow], fraction: float, *, seed: int
) -> tuple[list[PreferenceRow], list[PreferenceRow]]:
    """Return (training, held-out) rows.

    Rows that share an image stay together, as do rows without images that share their prompt, so
    that no held-out image is in the training rows with another question. The share is the same for
    every domain.

    Args:
        rows: All rows.
        fraction: Share of each domain to hold out, in [0, 1). If it is above 0, at least one
            cluster of each domain with two or more clusters is held out.
        seed: Seed of the selection of clusters.
    """
    held_out: set[int] = set()
    by_domain: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in _clusters(rows):
        by_domain[rows[cluster[0]].domain].append(cluster)
    for domain, clusters in sorted(by_domain.items()):
        target = fraction * sum(len(cluster) for cluster in clusters)
        random.Random(f"{seed}-{domain}").shuffle(clusters)
        taken = 0
        for cluster in clusters[:-1] if fraction > 0 else ():  # the last cluster is for training
            if taken >= target:
                break
            held_out.update(cluster)
            taken += len(cluster)
    training = [row for number, row in enumerate(rows) if number not in held_out]
    return training, [row for number, row in enumerate(rows) if number in held_out]


def _clusters(rows: Sequence[PreferenceRow]) -> list[list[int]]:
    """Return row numbers that belong together, in the order of their first row."""
    from networkx.utils import UnionFind

    clusters = UnionFind(range(len(rows)))
    first_with: dict[str, int] = {}
    for number, row in enumerate(rows):
        for key in _keys(row):
            clusters.union(number, first_with.setdefault(key, number))
    return sorted(map(sorted, clusters.to_sets()))


def _keys(row: PreferenceRow) -> list[str]:
    if row.media:
        return [item.key() for item in row.media]
    text = "\n".join(f"{message.role}: {message.text}" for message in row.messages)
    return [hashlib.sha256(text.encode()).hexdigest()]

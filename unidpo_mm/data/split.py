"""Split rows into training and held-out ones by prompt and image, never by pair."""

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence

from ..records import PreferenceRow
from .row_table import RowTable, table_of, take_rows

__all__ = ["split_rows"]


def split_rows(
    rows: Sequence[PreferenceRow], fraction: float, *, seed: int
) -> tuple[Sequence[PreferenceRow], Sequence[PreferenceRow]]:
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
    table = table_of(rows)
    domains = table.columns.domain.tolist()
    by_domain: dict[str, list[list[int]]] = defaultdict(list)
    for cluster in _clusters(table):
        by_domain[table.columns.domain_names[domains[cluster[0]]]].append(cluster)
    for domain, clusters in sorted(by_domain.items()):
        target = fraction * sum(len(cluster) for cluster in clusters)
        random.Random(f"{seed}-{domain}").shuffle(clusters)
        taken = 0
        for cluster in clusters[:-1] if fraction > 0 else ():  # the last cluster is for training
            if taken >= target:
                break
            held_out.update(cluster)
            taken += len(cluster)
    training = [number for number in range(len(rows)) if number not in held_out]
    return take_rows(rows, training), take_rows(rows, sorted(held_out))


def _clusters(table: RowTable) -> list[list[int]]:
    """Return row numbers that belong together, in the order of their first row."""
    parents = list(range(len(table)))

    def root(number: int) -> int:
        while parents[number] != number:
            parents[number] = number = parents[parents[number]]
        return number

    first_with: dict[Hashable, int] = {}
    for number, (text, media) in enumerate(zip(table.keys("text"), table.media_keys, strict=True)):
        for key in media or (text,):
            first, second = root(number), root(first_with.setdefault(key, number))
            parents[max(first, second)] = min(first, second)  # the root is the first row
    clusters: dict[int, list[int]] = {}
    for number in range(len(table)):
        clusters.setdefault(root(number), []).append(number)
    return list(clusters.values())

"""Digest of training data, by which a resumed run detects that its data has changed.

The digest of a row covers everything that can change a loss: prompt, images and videos by their
content, responses, scores, pairs with their weights, tools, domain and source. It does not cover
the id of the row and its place in a file, which only appear in messages and which change for every
later row when a row is removed.

Measured on one core: 0.3 s for 1,000 JPEG files of 31 kB, 1 s for 20,000 text rows.
"""

import base64
import dataclasses
import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy

from ..errors import counted
from ..records import PreferenceRow
from .row_digest import row_digests
from .row_table import RowTable, columns_of

__all__ = ["DataDigest", "SourceDigest", "data_digest", "difference", "row_digests"]

SHORT = 8
"""Bytes kept per row to identify changed rows; 100,000 rows take 1.1 MB as base64."""
MODULUS = 1 << 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceDigest:
    """Digest of the rows of one source.

    Attributes:
        source: Name of the source.
        rows: Number of rows.
        ordered: SHA-256 of the rows in their order, hexadecimal.
        unordered: Sum of the rows' SHA-256 values, hexadecimal; equal in any order.
        row_digests: The first 8 bytes of each row's SHA-256, in order.
    """

    source: str
    rows: int
    ordered: str
    unordered: str
    row_digests: tuple[bytes, ...] = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataDigest:
    """Digest of all rows of a run.

    Attributes:
        ordered: SHA-256 of all rows in their order, hexadecimal.
        sources: Digests of the sources, in the order of their first rows.
    """

    ordered: str
    sources: tuple[SourceDigest, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the digest as strings, integers, lists and dicts."""
        return {
            "ordered": self.ordered,
            "sources": [
                {
                    "source": source.source,
                    "rows": source.rows,
                    "ordered": source.ordered,
                    "unordered": source.unordered,
                    "row_digests": base64.b64encode(b"".join(source.row_digests)).decode(),
                }
                for source in self.sources
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "DataDigest":
        """Return the digest that `to_json` wrote.

        Raises:
            ValueError: If the content is not a digest.
        """
        try:
            sources = tuple(
                SourceDigest(
                    source=str(source["source"]),
                    rows=int(source["rows"]),
                    ordered=str(source["ordered"]),
                    unordered=str(source["unordered"]),
                    row_digests=_split(base64.b64decode(source["row_digests"], validate=True)),
                )
                for source in content["sources"]
            )
            digest = cls(ordered=str(content["ordered"]), sources=sources)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a data digest ({type(error).__name__}: {error})") from error
        if any(len(source.row_digests) != source.rows for source in digest.sources):
            raise ValueError("not a data digest (a source has another number of row digests)")
        return digest


def data_digest(rows: Iterable[PreferenceRow]) -> DataDigest:
    """Return the digest of rows.

    Args:
        rows: The rows of a run, in the order in which the run reads them.
    """
    if not isinstance(rows, RowTable):
        rows = list(rows)
        return _digest(zip((row.source for row in rows), row_digests(rows), strict=True))
    names = rows.columns.source_names
    sources = (names[code] for code in rows.columns.source.tolist())
    values = (value.tobytes() for value in rows.digests())
    return _digest(zip(sources, values, strict=True))


def _digest(rows: Iterable[tuple[str, bytes]]) -> DataDigest:
    """Return the digest of rows, given as source and digest."""
    overall = hashlib.sha256()
    by_source: dict[str, list[bytes]] = {}
    for source, value in rows:
        overall.update(source.encode("utf-8", "backslashreplace") + b"\0" + value)
        by_source.setdefault(source, []).append(value)
    sources = tuple(_source_digest(name, values) for name, values in by_source.items())
    return DataDigest(ordered=overall.hexdigest(), sources=sources)


def difference(old: DataDigest, new: DataDigest, rows: Sequence[PreferenceRow]) -> list[str]:
    """Return what changed between two digests, one sentence per change; empty if nothing did.

    Args:
        old: The digest that was recorded.
        new: The digest of the current rows.
        rows: The current rows, of which the first changed one is named by its file.
    """
    if old.ordered == new.ordered:
        return []
    before = {source.source: source for source in old.sources}
    after = {source.source: source for source in new.sources}
    sentences = [
        f"source '{name}': removed, it had {counted(source.rows, 'row')}"
        for name, source in before.items()
        if name not in after
    ]
    for name, source in after.items():
        if name not in before:
            sentences.append(f"source '{name}': added, it has {counted(source.rows, 'row')}")
        elif source.ordered != before[name].ordered:
            place = functools.partial(_place, rows, name)
            sentences.append(f"source '{name}': {_changes(before[name], source, place)}")
    if not sentences:
        sentences.append("the rows of the sources are interleaved in another order")
    return sentences


def _place(rows: Sequence[PreferenceRow], source: str, number: int) -> str:
    """Return file and row number of the row with this index among those of its source."""
    columns = columns_of(rows)
    indices = numpy.flatnonzero(columns.source == columns.source_names.index(source))
    return rows[int(indices[number])].where


def _changes(old: SourceDigest, new: SourceDigest, place: Callable[[int], str]) -> str:
    """Return what changed in a source.

    Args:
        old: The digest that was recorded.
        new: The digest of the current rows.
        place: Returns file and row number of a current row, by its index.
    """
    if old.unordered == new.unordered:
        return f"the same {counted(new.rows, 'row')} in another order"
    before, common_before = _only_in(old.row_digests, new.row_digests)
    after, common_after = _only_in(new.row_digests, old.row_digests)
    changed = before & after if old.rows == new.rows else set()
    parts = [
        f"{counted(len(numbers), 'row')} {verb}, the first is {place(min(numbers))}"
        for numbers, verb in ((changed, "changed"), (after - changed, "added"))
        if numbers
    ]
    if removed := before - changed:
        first = min(removed) + 1
        text = f"removed, the first was row {first} of the earlier run"
        parts.append(f"{counted(len(removed), 'row')} {text}")
    if common_before != common_after:
        parts.append("the other rows are in another order")
    return "; ".join(parts)


def _only_in(values: Sequence[bytes], others: Sequence[bytes]) -> tuple[set[int], list[bytes]]:
    """Return the indices of the values that `others` lacks, and the other values.

    Equal values count separately.
    """
    remaining = Counter(others)
    indices, common = set(), []
    for number, value in enumerate(values):
        remaining[value] -= 1
        if remaining[value] < 0:
            indices.add(number)
        else:
            common.append(value)
    return indices, common


def _source_digest(name: str, values: Sequence[bytes]) -> SourceDigest:
    total = sum(int.from_bytes(value) for value in values) % MODULUS
    return SourceDigest(
        source=name,
        rows=len(values),
        ordered=hashlib.sha256(b"".join(values)).hexdigest(),
        unordered=f"{total:064x}",
        row_digests=tuple(value[:SHORT] for value in values),
    )


def _split(content: bytes) -> tuple[bytes, ...]:
    return tuple(content[start : start + SHORT] for start in range(0, len(content), SHORT))

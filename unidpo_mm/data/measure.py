"""Encode rows and keep their lengths, or the problems of those that cannot be encoded.

With an index, a second start or another rank need not encode the rows again. The key of a row is
the digest of its content, with the content of its images, so it does not depend on its file and
place. Rows with problems are not part of the index: they are encoded at each start, and reported.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from ..adapter import Adapter, encode_checked
from ..cache.row_index import COLUMNS, NUMBERS, RowIndex, add_rows, index_path, read_index
from ..distributed import gather_objects, place_among_processes, saves_for_machine
from ..errors import DataError, Problem
from ..extras import installed_version
from ..records import MEDIA_KINDS, PreferenceRow
from .code_digest import code_digest
from .columns import Ragged
from .row_table import table_of, take_rows

__all__ = ["MeasuredRow", "Measurements", "measure_rows", "measure_with_index"]

PACKAGES = ("unidpo-mm", "transformers", "tokenizers", "pillow", "av")
"""Packages whose version may change how a row is encoded."""

SAVED_ROWS = 50_000
"""Number of rows that are encoded before they are added to the index."""


@dataclass(frozen=True)
class MeasuredRow:
    """Lengths and counts of an encoded row.

    Attributes:
        prompt: Tokens of the prompt, including images; 0 if the row cannot be encoded.
        responses: Tokens of each response; empty if the row cannot be encoded.
        images: Tokens of images.
        videos: Tokens of videos; 0 for families that take frames as images.
        pairs: Number of pairs.
        truncated: Responses truncated to fit `max_length`.
        shrunk: Images scaled down to fit `max_length`.
        shortened: Videos with fewer or smaller frames to fit `max_length`.
        identical: Pairs whose responses have the same tokens, for example after truncation.
        problems: Why the row cannot be encoded.
        kind: Class of that error.
    """

    prompt: int = 0
    responses: tuple[int, ...] = ()
    images: int = 0
    videos: int = 0
    pairs: int = 0
    truncated: int = 0
    shrunk: int = 0
    shortened: int = 0
    identical: int = 0
    problems: tuple[Problem, ...] = ()
    kind: type[DataError] = DataError

    @property
    def longest(self) -> int:
        """Tokens of the longest plain row, which is the prompt and one response."""
        return self.prompt + max(self.responses)

    @property
    def plain(self) -> int:
        """Tokens of all plain rows, without padding."""
        return len(self.responses) * self.prompt + sum(self.responses)

    @property
    def packed(self) -> int:
        """Tokens of the packed row, in which the responses share the prompt."""
        return self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Measurements:
    """The measurements of all rows.

    Attributes:
        numbers: Name of a number of `MeasuredRow` -> its values, [N].
        responses: Tokens of the responses of each row.
        refused: Index of a row that cannot be encoded -> its measurement, with its problems.
    """

    numbers: dict[str, NDArray[Any]]
    responses: Ragged
    refused: dict[int, MeasuredRow]

    @classmethod
    def of(
        cls, index: RowIndex, places: NDArray[Any], added: Mapping[int, MeasuredRow]
    ) -> "Measurements":
        """Return the measurements at places of an index, and those of other rows.

        Args:
            index: The index.
            places: [N] The place of each row; -1 for those in `added`.
            added: Index of a row -> its measurement.
        """
        indexed = places >= 0
        numbers = {name: numpy.zeros(len(places), dtype=numpy.int64) for name in NUMBERS}
        for name, values in numbers.items():
            values[indexed] = index.columns[name][places[indexed]]
            values[list(added)] = [getattr(row, name) for row in added.values()]
        stored = Ragged(index.offsets, index.lengths)
        new = Ragged.of((row.responses for row in added.values()), numpy.int64)
        order = numpy.where(indexed, places, 0)
        order[list(added)] = len(stored) + numpy.arange(len(added))
        refused = {number: row for number, row in added.items() if row.problems}
        return cls(numbers, Ragged.join([stored, new]).take(order), refused)

    def __len__(self) -> int:
        return len(self.responses)

    def __getitem__(self, index: int) -> MeasuredRow:
        if index in self.refused:
            return self.refused[index]
        values: dict[str, Any] = {name: int(row[index]) for name, row in self.numbers.items()}
        return MeasuredRow(**values, responses=tuple(self.responses[index].tolist()))


def measure_rows(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Encode rows in worker processes (0: in this one) and yield their measurements in order."""
    dataset: Any = rows
    measure = functools.partial(_measured, adapter)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        collate_fn=measure,
        generator=torch.Generator(),  # draws, as for a new LoRA adapter, do not depend on the rows
    )
    return iter(loader)


def measure_with_index(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Measurements:
    """Return the measurements of rows; encode only those that the index does not have.

    Every process encodes a part of them. They are added to the index from time to time, so that an
    interrupted start is not lost.
    """
    torch.empty((), dtype=torch.int64).random_()  # as before: runs with a seed keep their results
    fingerprint = encoding_fingerprint(adapter)
    path = None if fingerprint is None else index_path(fingerprint)
    index = RowIndex(COLUMNS.empty_table()) if path is None else read_index(path)
    keys = numpy.zeros((len(rows), 32), numpy.uint8) if path is None else table_of(rows).digests()
    places = index.find(keys)
    missing = sorted(set().union(*gather_objects(numpy.flatnonzero(places < 0).tolist())))
    places[missing] = -1  # also those that only another machine lacks
    added: dict[int, MeasuredRow] = {}
    for start in range(0, len(missing), SAVED_ROWS):
        part = missing[start : start + SAVED_ROWS]
        measured = dict(zip(part, _measure_shared(rows, part, adapter, workers), strict=True))
        added |= measured
        if path is not None and saves_for_machine():
            encoded = {n: row for n, row in measured.items() if not row.problems}
            add_rows(path, {keys[n].tobytes(): _numbers(row) for n, row in encoded.items()})
    return Measurements.of(index, places, added)


def _measure_shared(
    rows: Sequence[PreferenceRow], numbers: Sequence[int], adapter: Adapter, workers: int
) -> list[MeasuredRow]:
    """Return the measurements of rows with these numbers, each encoded by one of the processes."""
    rank, processes = place_among_processes()
    encoded = measure_rows(take_rows(rows, numbers[rank::processes]), adapter, workers=workers)
    parts = gather_objects(list(encoded))
    return [parts[place % processes][place // processes] for place in range(len(numbers))]


def _numbers(measured: MeasuredRow) -> dict[str, Any]:
    return {name: getattr(measured, name) for name in ("responses", *NUMBERS)}


def encoding_fingerprint(adapter: Adapter) -> str | None:
    """Return a digest of everything that decides how rows are encoded.

    It is `None` if that cannot be compared: the adapter does not expose its options and limits, or
    its tokenizer is not one of the library `tokenizers`.
    """
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (hasattr(adapter, "options") and hasattr(adapter, "limits")):
        return None
    media_processors = (
        getattr(adapter.processor, f"{kind}_processor", None) for kind in MEDIA_KINDS
    )
    content = {
        "versions": {name: _version(name) for name in PACKAGES},
        "code": [code_digest(type(adapter)), code_digest(type(adapter.processor))],
        "options": [repr(adapter.options), repr(adapter.limits)],
        "tokenizer": backend.to_str(),
        "templates": [_template(adapter.processor), _template(tokenizer)],
        "media": [None if item is None else item.to_dict() for item in media_processors],
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _version(package: str) -> str | None:
    """Return the version of a package; `None` if it is not installed."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None


def _template(processor: Any) -> str:
    return str(getattr(processor, "chat_template", None))


def _measured(adapter: Adapter, row: PreferenceRow) -> MeasuredRow:
    try:
        group = encode_checked(adapter, row)
    except DataError as error:
        return MeasuredRow(problems=error.problems, kind=type(error))
    return MeasuredRow(
        prompt=group.prompt_ids.numel(),
        responses=tuple(ids.numel() for ids in group.response_ids),
        images=group.images.tokens,
        videos=group.videos.tokens,
        pairs=len(group.preferences.pairs),
        truncated=group.cut_responses,
        shrunk=group.images.shrunk,
        shortened=group.videos.shrunk,
        identical=sum(
            torch.equal(group.response_ids[pair.chosen], group.response_ids[pair.rejected])
            for pair in group.preferences.pairs
        ),
    )

"""Rows in a file: written once, then read one by one when they are used.

`RowWriter` writes the rows of a source in the order of their records, with the columns that
counting, splitting and grouping need (`columns.py`, `row_keys`). `RowFile` is a sequence of the
rows that holds none of them in memory.
"""

import bisect
import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy
import pyarrow as pa
from numpy.typing import NDArray

from ..cache.row_files import MEDIA_FILE, ROWS_FILE, open_table
from ..cache.staging import StagingFolder
from ..errors import DataError, Problem
from ..records import ImageRef, PreferenceRow, VideoRef
from .columns import Ragged, RowColumns
from .images import FileImage, MemoryImage
from .media_keys import media_name
from .row_codec import decode_row, encode_row, plain_messages
from .videos import FileVideo, MemoryVideo

__all__ = ["KEYS", "RowFile", "RowWriter", "response_keys", "row_keys"]

BATCH = 4096
"""Rows that are written at once."""

BATCH_BYTES = 64 << 20
"""Bytes of rows that are written at once, unless a single row has more."""

KEYS = ("id", "prompt", "group", "text")
"""Keys of a row, see `row_keys`."""

KEY_BYTES = 16

MAGIC_BYTES = 8
"""Bytes of an Arrow file before its batches, which are those of an Arrow stream."""

LISTS = ("scores", "chosen", "rejected", "weights", "labels")
NUMBERS = ("images", "videos", "other_images", "responses", "targets")

SCHEMA = pa.schema(
    [
        ("row", pa.large_binary()),
        *((name, pa.binary(KEY_BYTES)) for name in KEYS),
        *((name, pa.string()) for name in ("source", "domain")),
        *((name, pa.int32()) for name in NUMBERS),
        *((name, pa.list_(pa.float64())) for name in LISTS),
        ("response_keys", pa.list_(pa.uint64())),
        ("media", pa.list_(pa.int32())),
    ]
)
MEDIA_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # of a file, else null
        ("key", pa.string()),  # of media in memory, else null
        ("row", pa.int64()),  # the first row with it, and its place there
        ("place", pa.int32()),
    ]
)


def row_keys(row: PreferenceRow) -> dict[str, bytes]:
    """Return keys of a row without its media.

    - ``id``: its id.
    - ``prompt``: what `groups.prompt_key` compares.
    - ``group``: what rows that are joined must have in common.
    - ``text``: roles and texts of the prompt, by which rows without media are split.
    """
    messages = json.dumps(plain_messages(row))
    rendering = [row.source, row.domain, row.raw, row.tools, row.template_kwargs, row.reasoning]
    text = "\n".join(f"{message.role}: {message.text}" for message in row.messages)
    return {
        "id": _key(row.id),
        "prompt": _key(f"{messages}\n{row.tools}"),
        "group": _key(f"{messages}\n{json.dumps(rendering)}"),
        "text": _key(text),
    }


def response_keys(row: PreferenceRow) -> list[int]:
    """Return a number for each response, which is equal for equal texts with equal scores."""
    scores = (None if item.score is None else float(item.score) + 0.0 for item in row.responses)
    return [
        int.from_bytes(_key(f"{score} {response.text}")[:8])
        for response, score in zip(row.responses, scores, strict=True)
    ]


def _key(text: str) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()


class RowWriter:
    """Writes rows into a directory.

    After an `OSError`, which a full disk causes, `recover` returns all rows.

    Args:
        folder: An existing directory.

    Raises:
        OSError: If its files cannot be created.

    Attributes:
        rows: Number of rows that were added, including that of an `OSError`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows = 0
        self._batches = 0
        self._file = pa.OSFile(str(folder / ROWS_FILE), "wb")
        self._writer = pa.ipc.new_file(self._file, SCHEMA)
        self._media: dict[str, int] = {}
        self._media_columns: dict[str, list[Any]] = {name: [] for name in MEDIA_SCHEMA.names}
        self._start_batch()

    def _start_batch(self) -> None:
        self._batch: list[PreferenceRow] = []
        self._encoded: list[bytes] = []
        self._media_numbers: list[list[int]] = []
        self._bytes = 0

    def add(self, row: PreferenceRow) -> None:
        """Write a row.

        Raises:
            NotStorable: If it is of a kind that cannot be written; then it was not added.
            OSError: If the rows cannot be written.
        """
        encoded = encode_row(row)
        self._encoded.append(encoded)
        self._batch.append(row)
        self._media_numbers.append(
            [self._number(media, place) for place, media in enumerate(row.all_media)]
        )
        self.rows += 1
        self._bytes += len(encoded)
        if len(self._batch) >= BATCH or self._bytes >= BATCH_BYTES:
            self._write()

    def finish(self) -> None:
        """Write the rest, and close the file.

        Raises:
            OSError: If the rows cannot be written.
        """
        self._write()
        self._writer.close()
        self._file.close()
        media = pa.Table.from_pydict(self._media_columns, schema=MEDIA_SCHEMA)
        path = str(self.folder / MEDIA_FILE)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, MEDIA_SCHEMA) as writer:
            writer.write_table(media)

    def recover(self) -> list[PreferenceRow]:
        """Return all rows that were added; nothing can be written afterwards.

        The file may end with an incomplete batch, whose rows are still in memory.
        """
        with contextlib.suppress(OSError):
            self._file.close()
        rows: list[PreferenceRow] = []
        if self._batches:
            with pa.memory_map(str(self.folder / ROWS_FILE)) as file:
                reader = pa.ipc.open_stream(file.read_buffer()[MAGIC_BYTES:])
                for _ in range(self._batches):
                    column = reader.read_next_batch().column("row")
                    rows += (decode_row(memoryview(value.as_buffer())) for value in column)
        return [*rows, *self._batch]

    def _write(self) -> None:
        rows = self._batch
        if not rows:
            return
        numbers = RowColumns.of(rows)
        keys = [row_keys(row) for row in rows]
        columns: dict[str, Any] = {
            "row": self._encoded,
            **{name: [values[name] for values in keys] for name in KEYS},
            "source": [row.source for row in rows],
            "domain": [row.domain for row in rows],
            **{name: getattr(numbers, name) for name in NUMBERS},
            **{name: _list_array(getattr(numbers, name)) for name in LISTS},
            "response_keys": [response_keys(row) for row in rows],
            "media": self._media_numbers,
        }
        self._writer.write_table(pa.Table.from_pydict(columns, schema=SCHEMA))
        self._batches += 1
        self._start_batch()

    def _number(self, media: ImageRef | VideoRef, place: int) -> int:
        """Return the number of an image or a video, which is new or has occurred before."""
        in_memory = isinstance(media, MemoryImage | MemoryVideo)
        key = media.key() if in_memory else None
        name = f"{type(media).__name__} {key}" if in_memory else media_name(media)
        if name in self._media:
            return self._media[name]
        path = str(media.path) if isinstance(media, FileImage | FileVideo) else None
        for column, value in zip(MEDIA_SCHEMA.names, (path, key, self.rows, place), strict=True):
            self._media_columns[column].append(value)
        return self._media.setdefault(name, len(self._media))


def _list_array(lists: Ragged) -> pa.ListArray:
    return pa.ListArray.from_arrays(lists.offsets.astype(numpy.int32), lists.values)


class RowFile(Sequence[PreferenceRow]):
    """The rows that `RowWriter` wrote.

    Raises:
        OSError, ValueError: If they cannot be read.

    Attributes:
        folder: Their directory.
        staging: The directory, if it is removed together with this object; else `None`.
        media_table: The distinct images and videos.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.staging: StagingFolder | None = None
        self._table = open_table(folder / ROWS_FILE)
        if self._table.schema != SCHEMA:
            raise ValueError("the columns are those of another version")
        self.media_table = open_table(folder / MEDIA_FILE)
        self._chunks = self._table.column("row").chunks
        self._starts: list[int] = numpy.cumsum([0, *map(len, self._chunks)]).tolist()

    def __reduce__(self) -> Any:
        return RowFile, (self.folder,)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = bisect.bisect_right(self._starts, index) - 1
        value = self._chunks[chunk][index - self._starts[chunk]]
        try:
            return decode_row(memoryview(value.as_buffer()))
        except (ValueError, TypeError, LookupError) as error:
            text = f"row {index + 1} of the cached rows is damaged ({error})"
            remedy = "Run `unidpo-mm cache verify`, which removes damaged files, and start again"
            raise DataError(Problem(str(self.folder / ROWS_FILE), text, remedy)) from error

    def __iter__(self) -> Iterator[PreferenceRow]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def columns(self) -> RowColumns:
        """The numbers of the rows."""
        names: dict[str, Any] = {}
        for name in ("source", "domain"):
            encoded = self._table.column(name).dictionary_encode().combine_chunks()
            names[name] = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
        return RowColumns(
            tuple(names["source"][0]),
            tuple(names["domain"][0]),
            names["source"][1],
            names["domain"][1],
            *(self._table.column(name).to_numpy() for name in NUMBERS),
            *map(self._ragged, LISTS),
        )

    def keys(self, name: str) -> list[bytes]:
        """Return a key of each row, see `row_keys`."""
        keys: list[bytes] = self._table.column(name).to_pylist()
        return keys

    @property
    def response_keys(self) -> Ragged:
        """The `response_keys` of each row."""
        return self._ragged("response_keys")

    @cached_property
    def media(self) -> Ragged:
        """The numbers of each row's media, in the order of `PreferenceRow.all_media`."""
        return self._ragged("media")

    def _ragged(self, name: str) -> Ragged:
        array = self._table.column(name).combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # without rows, or by older releases of pyarrow
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
        offsets: NDArray[Any] = array.offsets.to_numpy().astype(numpy.int64)
        return Ragged(offsets - offsets[0], array.flatten().to_numpy())

"""A file of responses that is written batch by batch and remains usable if a process is killed.

While a run is in progress, every process appends to its own file next to the final one, a *part*,
which it locks. When the run resumes, an incomplete last line is removed and finished samples are
not repeated. At the end all files are merged by id, in the order of the data, so the result does
not depend on the number of processes or interruptions. A finished file can be continued with more
ids.

Texts stay on disk: a store holds the positions of its records, so that it can have millions.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ..atomic import replacement
from ..errors import DataError, Problem, counted
from .part_lock import PartLock, hold_part
from .record_index import Record, RecordIndex, complete_lines

__all__ = ["MANIFEST", "ResponseStore"]

MANIFEST = "manifest"
"""Key of the first record, which describes how the other records were generated."""


class ResponseStore:
    """The records of one model, by id.

    A subclass declares which differences between manifests are allowed when a run resumes.

    Args:
        path: The final file.
        manifest: How the records are generated, as values of JSON.
        rank: Index of this process, which has its own part.
        overwrite: Whether to remove existing records; only the first process does.

    Raises:
        DataError: If another process is writing the records that would be removed.

    Attributes:
        finished: Whether the final file had a record of every id, without errors, when it was
            opened.
    """

    noun = "response"
    """Noun for a record, for messages."""
    resume = "Run the command again to resume"
    """Remedy if records are missing."""
    start_over = "Use the same options, another directory, or --overwrite to start over"
    """Remedy if existing records were made with other settings."""
    unstable: frozenset[str] = frozenset()
    """Keys of a manifest that may differ when a run resumes."""
    unrecorded: Mapping[str, str] = {}
    """Key that manifests of earlier versions lack -> message that explains how records differ."""
    hashes: Mapping[str, str] = {}
    """Key of a manifest whose value is a hash -> message that explains how records differ."""

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], *, rank: int = 0, overwrite: bool = False
    ) -> None:
        self.path, self.manifest = path, json.loads(json.dumps(manifest))
        self.parts = path.with_suffix(".parts")
        self.part = self.parts / f"{rank}.jsonl"
        self.finished = False
        self._index, self._failed = RecordIndex(), set[str]()
        self._lock: PartLock | None = None
        if overwrite and rank == 0:
            self._remove_records()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def done(self) -> Mapping[str, Record]:
        """The finished records by id, which are read from disk when they are used.

        Lookups of ids read nothing, and iterating over values holds a single record at a time.
        """
        return self._index

    def complete(self, ids: Sequence[str], work: Callable[[], None], *, merge: bool = True) -> None:
        """Let every process add its share of the records, then merge them on the first one.

        Afterwards all records can be read in every process.

        Args:
            ids: Ids of all records, in the order of the final file.
            work: Adds the missing records of this process; it is not called if there are none.
            merge: Whether to merge; another run does that if these processes add only a share.

        Raises:
            DataError: As in `open` and `merge`.
        """
        from ..distributed.processes import processes  # imports torch

        state = processes()
        state.wait_for_everyone()  # `overwrite` removes files before any process reads
        with self:
            self.open(ids)
            if not self.finished:
                work()
            state.wait_for_everyone()
            if merge and state.is_main_process and not self.finished:
                self.merge(ids)
            state.wait_for_everyone()
        if merge and not (self.finished or state.is_main_process):
            self._read_final()  # its parts have been removed

    def open(self, ids: Iterable[str] = ()) -> None:
        """Read finished records, and continue the file of this process if some are missing.

        Samples that ended with an error are repeated: a missing image, or memory, may be available
        now.

        Args:
            ids: Ids of all records. A finished file that lacks some of them is continued: the
                others are added to parts, and merging keeps the lines that it has.

        Raises:
            DataError: If existing records were made with different settings, or another process
                is writing the file of this process.
        """
        self._read_final()
        complete = self.path.is_file() and not self._failed
        self.finished = complete and all(name in self._index for name in ids)
        if not self.finished:
            self._continue()

    def final_ids(self) -> set[str]:
        """Return the ids of the records in the final file, without those that are repeated."""
        return self._index.ids_in(self.path)

    def final_manifest(self) -> Mapping[str, Any]:
        """Return the manifest of the final file; empty if there is no such file.

        Raises:
            DataError: If the file is damaged.
        """
        return self._manifest_of(self.path)

    def part_manifest(self) -> Mapping[str, Any]:
        """Return the manifest of an unfinished run; empty if there is none.

        Raises:
            DataError: If a part is damaged.
        """
        manifests = map(self._manifest_of, self._part_files())
        return next(filter(None, manifests), {})

    def _manifest_of(self, file: Path) -> Mapping[str, Any]:
        lines = complete_lines(file) if file.is_file() else iter(())
        _, line = next(lines, (0, b""))
        if not line:
            return {}
        manifest = self._parse(line, f"{file} row 1", first=True).get(MANIFEST, {})
        return manifest if isinstance(manifest, dict) else {}

    def close(self) -> None:
        """Let other processes write the file of this process; records can still be read."""
        self._lock = None

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records to the file of this process.

        Raises:
            ValueError: If the store is not open, or finished.
            OSError: If they cannot be written; then none of them is.
        """
        lines = [_line(record) for record in records]
        position = self._append(lines)
        for record, line in zip(records, lines, strict=True):
            self._index.put(record["id"], self.part, position)
            position += len(line)

    def merge(self, ids: Sequence[str]) -> None:
        """Write the final file, with the records in the order of `ids`, and remove the parts.

        Raises:
            DataError: If records are missing.
        """
        for part in self._part_files():
            self._read(part, keep_responses=True)
        missing = [name for name in ids if name not in self._index]
        if missing:
            text = counted(len(missing), "sample is", "samples are")
            text += f" not finished, the first of them '{missing[0]}'"
            raise DataError(Problem(str(self.parts), text, self.resume))
        self._index = self._write_final(ids)
        shutil.rmtree(self.parts, ignore_errors=True)

    def stable(self, name: str, value: Any) -> Any:
        """Return the part of a manifest's value that must not change when a run resumes."""
        return value

    def _continue(self) -> None:
        """Lock the file of this process, and read the records of all parts."""
        self.parts.mkdir(parents=True, exist_ok=True)
        self._lock = hold_part(self.part)
        if self.part.is_file() and not _has_records(self.part):
            os.truncate(self.part, 0)  # made with other settings, perhaps, and of no use
        for part in self._part_files():
            if not _has_records(part):
                continue
            end = self._read(part)
            if part == self.part and end < part.stat().st_size:
                os.truncate(part, end)
        for name in self._failed:
            self._index.discard(name)
        if not self.part.is_file() or not self.part.stat().st_size:
            self._append([_line({MANIFEST: self.manifest})])

    def _append(self, lines: Sequence[bytes]) -> int:
        """Append lines to the file of this process, and return the position of the first."""
        if self._lock is None:
            raise ValueError(f"{self.part} is not open for writing")
        content = b"".join(lines)
        with self.part.open("ab", buffering=0) as stream:
            start = stream.tell()
            try:
                while content:  # normally a single write
                    content = content[stream.write(content) :]
            except BaseException:  # the next line must not be appended to an incomplete one
                stream.truncate(start)
                raise
        return start

    def _write_final(self, ids: Sequence[str]) -> RecordIndex:
        """Copy the lines of records to the final file, and return their index."""
        index = RecordIndex()
        with replacement(self.path) as stream:
            position = stream.write(_line({MANIFEST: self.manifest}))
            for name, line, _ in self._index.lines(ids):
                index.put(name, self.path, position)
                position += stream.write(line)
        return index

    def _remove_records(self) -> None:
        """Remove the final file and the parts, unless another process is writing one of them."""
        locks = [hold_part(part) for part in self._part_files()]
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)
        del locks  # held until here

    def _part_files(self) -> list[Path]:
        return sorted(self.parts.glob("*.jsonl"))

    def _read_final(self) -> None:
        """Read the records of the final file alone."""
        self._index, self._failed = RecordIndex(), set()
        if self.path.is_file():
            self._read(self.path)

    def _read(self, file: Path, *, keep_responses: bool = False) -> int:
        """Add the complete records of a file to the index; the last record of an id counts.

        Args:
            file: The final file or a part.
            keep_responses: Whether an error does not replace another record.

        Returns:
            The end of the last complete line, in bytes.
        """
        end = 0
        for number, (position, line) in enumerate(complete_lines(file), start=1):
            record = self._parse(line, f"{file} row {number}", first=number == 1)
            end = position + len(line)
            if number == 1:
                self._check_manifest(file, self._manifest_of(file))
                continue
            name, failed = record["id"], "error" in record
            if failed and keep_responses and name in self._index:
                continue
            self._index.put(name, file, position)
            (self._failed.add if failed else self._failed.discard)(name)
        return end

    def _parse(self, line: bytes, where: str, *, first: bool) -> Record:
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or (not first and "id" not in record):
                raise ValueError("expected an object with an id")
        except ValueError as error:
            text = f"the line is not a recorded {self.noun} ({error})"
            remedy = "Remove the file, or use another directory"
            raise DataError(Problem(where, text, remedy)) from error
        return record

    def _check_manifest(self, file: Path, recorded: Mapping[str, Any]) -> None:
        differences: list[str] = []
        for name in sorted({*recorded, *self.manifest} - self.unstable):
            before = self.stable(name, recorded.get(name))
            now = self.stable(name, self.manifest.get(name))
            if before == now:
                continue
            if name in self.unrecorded and name not in recorded:
                differences.append(f"{name}: {self.unrecorded[name]}")
            elif name in self.hashes:
                differences.append(self.hashes[name])
            else:
                differences += _differences(name, before, now)
        if differences:
            text = f"{self.noun}s were made with different settings: {'; '.join(differences)}"
            raise DataError(Problem(str(file), text, self.start_over))


def _has_records(part: Path) -> bool:
    """Return whether a part has a complete record after its manifest."""
    lines = complete_lines(part)
    return next(lines, None) is not None and next(lines, None) is not None


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # escapes unpaired surrogates as JSON does


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """Return how two values of a manifest differ; of objects, only the keys that do."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [
            key
            for key in dict.fromkeys([*before, *now])
            if (key in before) != (key in now) or before.get(key) != now.get(key)
        ]
        parts = (_differences(f"{name}.{key}", before.get(key), now.get(key)) for key in keys)
        return [text for part in parts for text in part]
    return [f"{name} was {_short(before)} and is {_short(now)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

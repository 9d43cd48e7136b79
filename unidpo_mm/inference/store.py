"""A file of responses that is written batch by batch and remains usable if a process is killed.

While a run is in progress, every process appends to its own file next to the final one. When the
run resumes, an incomplete last line is removed and finished samples are not repeated. At the end
all files are merged by id, in the order of the data, so the result does not depend on the number of
processes or interruptions.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_text
from ..errors import DataError, Problem, counted

__all__ = ["MANIFEST", "ResponseStore"]

MANIFEST = "manifest"
"""Key of the first record, which describes how the other records were generated."""


class ResponseStore:
    """The records of one model, by id.

    A subclass declares which differences between manifests are allowed when a run resumes.
    """

    noun = "response"
    """Noun for a record, for messages."""
    unstable: frozenset[str] = frozenset()
    """Keys of a manifest that may differ when a run resumes."""
    unrecorded: Mapping[str, str] = {}
    """Key that manifests of earlier versions lack -> message that explains how records differ."""

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], *, rank: int = 0, overwrite: bool = False
    ) -> None:
        self.path, self.manifest = path, json.loads(json.dumps(manifest))
        self.parts = path.with_suffix(".parts")
        self.part = self.parts / f"{rank}.jsonl"
        self.done: dict[str, dict[str, Any]] = {}
        self.finished = False
        if overwrite and rank == 0:
            path.unlink(missing_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)

    def complete(self, ids: Sequence[str], work: Callable[[], None]) -> None:
        """Let every process add its share of the records, then merge them on the first one.

        `work` adds the missing records of this process; it is not called if there are none.
        """
        from ..distributed.processes import processes  # imports torch

        state = processes()
        state.wait_for_everyone()  # `overwrite` removes files before any process reads
        self.open()
        if not self.finished:
            work()
        state.wait_for_everyone()
        if state.is_main_process and not self.finished:
            self.merge(ids)
        state.wait_for_everyone()

    def open(self) -> None:
        """Read finished records, and create or continue the file of this process.

        Samples that ended with an error are repeated: a missing image, or memory, may be available
        now.

        Raises:
            DataError: If existing records were made with different settings.
        """
        for file in (self.path, *sorted(self.parts.glob("*.jsonl"))):
            if file.is_file():
                self._read(file, truncate=file == self.part)
        failed = any("error" in record for record in self.done.values())
        self.done = {name: record for name, record in self.done.items() if "error" not in record}
        self.finished = self.path.is_file() and not failed
        if not self.finished:
            self.parts.mkdir(parents=True, exist_ok=True)
            if not self.part.is_file() or not self.part.stat().st_size:
                self._append([{MANIFEST: self.manifest}])

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append records to the file of this process."""
        self._append(records)
        self.done |= {record["id"]: dict(record) for record in records}

    def merge(self, ids: Sequence[str]) -> None:
        """Write the final file, with the records in the order of `ids`, and remove the parts."""
        for file in sorted(self.parts.glob("*.jsonl")):
            self._read(file, keep_responses=True)
        missing = [name for name in ids if name not in self.done]
        if missing:
            text = counted(len(missing), "sample is", "samples are")
            text += f" not finished, the first of them '{missing[0]}'"
            raise DataError(Problem(str(self.parts), text, "Run the command again to resume"))
        lines = [{MANIFEST: self.manifest}, *(self.done[name] for name in ids)]
        write_text(self.path, "".join(map(_line, lines)))
        shutil.rmtree(self.parts, ignore_errors=True)

    def stable(self, name: str, value: Any) -> Any:
        """Return the part of a manifest's value that must not change when a run resumes."""
        return value

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        content = "".join(map(_line, records)).encode()
        file = os.open(self.part, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while content:  # normally a single write
                content = content[os.write(file, content) :]
        finally:
            os.close(file)

    def _read(self, file: Path, *, truncate: bool = False, keep_responses: bool = False) -> None:
        """Read the complete records of a file."""
        content = file.read_bytes()
        complete = content[: content.rfind(b"\n") + 1]
        if truncate and len(complete) < len(content):
            os.truncate(file, len(complete))
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or (number > 1 and "id" not in record):
                    raise ValueError("expected an object with an id")
            except ValueError as error:
                text = f"the line is not a recorded {self.noun} ({error})"
                remedy = "Remove the file, or use another directory"
                raise DataError(Problem(f"{file} row {number}", text, remedy)) from error
            if number == 1:
                self._check_manifest(file, record.get(MANIFEST, {}))
            elif not (keep_responses and "error" in record and record["id"] in self.done):
                self.done[record["id"]] = record

    def _check_manifest(self, file: Path, recorded: Mapping[str, Any]) -> None:
        differences = [
            f"{name}: {self.unrecorded[name]}"
            if name in self.unrecorded and name not in recorded
            else f"{name} was {_short(recorded.get(name))} and is {_short(self.manifest.get(name))}"
            for name in sorted({*recorded, *self.manifest} - self.unstable)
            if self.stable(name, recorded.get(name)) != self.stable(name, self.manifest.get(name))
        ]
        if differences:
            text = f"{self.noun}s were made with different settings: {'; '.join(differences)}"
            remedy = "Use the same options, another directory, or --overwrite to start over"
            raise DataError(Problem(str(file), text, remedy))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

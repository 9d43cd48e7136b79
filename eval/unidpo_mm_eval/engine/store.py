"""A file of predictions that grows batch by batch, and that a kill at any byte leaves usable.

While a model answers, every process appends to a file of its own beside the final one. A line that
was torn is cut off when the run goes on; what is finished is never asked again. At the end all are
merged by id, in the order of the data: the file does not depend on how many processes there were,
nor on how often the run was killed.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

__all__ = ["PredictionStore"]

HEADER = "manifest"
UNSTABLE = frozenset({"first_prompt"})
"""What a manifest says beside the fingerprint."""


class PredictionStore:
    """The predictions of one checkpoint on one benchmark.

    Args:
        path: The final file.
        manifest: How the predictions are made; a file that was made otherwise is refused.
        rank: Number of this process.
        overwrite: Predictions that were made otherwise are removed.

    Raises:
        DataError: If predictions are there that were made otherwise.
    """

    def __init__(
        self, path: Path, manifest: Mapping[str, Any], *, rank: int = 0, overwrite: bool = False
    ) -> None:
        self.path, self.manifest = path, json.loads(json.dumps(manifest))
        self.parts = path.with_suffix(".parts")
        self.own = self.parts / f"{rank}.jsonl"
        self.done: dict[str, dict[str, Any]] = {}
        if overwrite and rank == 0:
            path.unlink(missing_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)

    def open(self) -> None:
        """Reads what is finished, cuts torn lines, and begins or goes on with the own file."""
        for file in (self.path, *sorted(self.parts.glob("*.jsonl"))):
            if file.is_file():
                self._read(file, cut=file == self.own)
        if not self.finished:
            self.parts.mkdir(parents=True, exist_ok=True)
            if not self.own.is_file() or not self.own.stat().st_size:
                self._append([{HEADER: self.manifest}])

    @property
    def finished(self) -> bool:
        """Whether the final file is there."""
        return self.path.is_file()

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Appends records in one write."""
        self._append(records)
        self.done |= {record["id"]: dict(record) for record in records}

    def merge(self, ids: Sequence[str]) -> None:
        """Writes the final file, in the order of the data, and removes the parts.

        Args:
            ids: All of them; each has to be finished.
        """
        for file in sorted(self.parts.glob("*.jsonl")):
            self._read(file, cut=False)
        lines = [{HEADER: self.manifest}, *(self.done[own] for own in ids)]
        whole = self.path.with_name(f"{self.path.name}.part")
        whole.write_text("".join(map(_line, lines)), encoding="utf-8")
        whole.replace(self.path)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        content = "".join(map(_line, records)).encode()
        file = os.open(self.own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, content)
        finally:
            os.close(file)

    def _read(self, file: Path, *, cut: bool) -> None:
        """Reads the records of a file; of another process's file a torn end is left as it is."""
        content = file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if cut and len(whole) < len(content):
            os.truncate(file, len(whole))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                found = f"it is no prediction of a run ({error})"
                remedy = "Remove the file, or name another folder"
                raise DataError(Problem(f"{file} row {number}", found, remedy)) from error
            if number == 1:
                self._refuse_other(file, record)
            else:
                self.done[record["id"]] = record

    def _refuse_other(self, file: Path, record: Mapping[str, Any]) -> None:
        before = record.get(HEADER, {})
        names = sorted({*before, *self.manifest} - UNSTABLE)
        other = [name for name in names if before.get(name) != self.manifest.get(name)]
        if other:
            said = "; ".join(
                f"{name} was {_short(before.get(name))} and is {_short(self.manifest.get(name))}"
                for name in other
            )
            found = f"it holds predictions that were made otherwise: {said}"
            remedy = "Name another folder, or remove them with --overwrite"
            raise DataError(Problem(str(file), found, remedy))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

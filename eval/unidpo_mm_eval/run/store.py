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
UNSTABLE = frozenset({"first_prompt", "trained_with_chat_template_kwargs"})
"""What a manifest says beside the fingerprint."""
UNRECORDED = {
    "sampling": "it was not recorded: earlier versions left parameters out, which servers such as "
    "vLLM then take from the model's generation_config.json"
}
"""Why a file without a key of the manifest was made otherwise."""


class PredictionStore:
    """The predictions of one checkpoint on one benchmark.

    Args:
        path: The final file.
        manifest: How the predictions are made; a file that was made otherwise is refused.
        rank: Number of this process.
        overwrite: Whatever is there is removed.

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
        self.finished = False
        if overwrite and rank == 0:
            path.unlink(missing_ok=True)
            shutil.rmtree(self.parts, ignore_errors=True)

    def open(self) -> None:
        """Reads what is answered, cuts torn lines, and begins or goes on with the own file.

        What was an error is asked again: a picture may be there now, or memory.
        """
        for file in (self.path, *sorted(self.parts.glob("*.jsonl"))):
            if file.is_file():
                self._read(file, cut=file == self.own)
        failed = [own for own, record in self.done.items() if "error" in record]
        self.done = {own: one for own, one in self.done.items() if "error" not in one}
        self.finished = self.path.is_file() and not failed
        if not self.finished:
            self.parts.mkdir(parents=True, exist_ok=True)
            if not self.own.is_file() or not self.own.stat().st_size:
                self._append([{HEADER: self.manifest}])

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
            self._read(file, cut=False, keep=True)
        missing = [own for own in ids if own not in self.done]
        if missing:
            found = f"{len(missing)} questions are not answered, the first of them '{missing[0]}'"
            raise DataError(Problem(str(self.parts), found, "Run it again: it asks the rest"))
        lines = [{HEADER: self.manifest}, *(self.done[own] for own in ids)]
        whole = self.path.with_name(f"{self.path.name}.part")
        whole.write_text("".join(map(_line, lines)), encoding="utf-8")
        whole.replace(self.path)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _append(self, records: Sequence[Mapping[str, Any]]) -> None:
        content = "".join(map(_line, records)).encode()
        file = os.open(self.own, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            while content:  # all at once, but for a disk that takes less
                content = content[os.write(file, content) :]
        finally:
            os.close(file)

    def _read(self, file: Path, *, cut: bool, keep: bool = False) -> None:
        """Reads the records of a file; of another process's file a torn end is left as it is.

        Args:
            file: The file.
            cut: A torn end is cut off.
            keep: An error does not take the place of an answer.
        """
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
            elif not (keep and "error" in record and record["id"] in self.done):
                self.done[record["id"]] = record

    def _refuse_other(self, file: Path, record: Mapping[str, Any]) -> None:
        before = record.get(HEADER, {})
        names = sorted({*before, *self.manifest} - UNSTABLE)
        other = [
            name
            for name in names
            if _stable(name, before.get(name)) != _stable(name, self.manifest.get(name))
        ]
        if other:
            said = "; ".join(
                f"{name}: {UNRECORDED[name]}"
                if name in UNRECORDED and name not in before
                else f"{name} was {_short(before.get(name))} and is "
                f"{_short(self.manifest.get(name))}"
                for name in other
            )
            found = f"it holds predictions that were made otherwise: {said}"
            remedy = "Give the options as before, name another folder, or begin anew (--overwrite)"
            raise DataError(Problem(str(file), found, remedy))


def _stable(name: str, value: Any) -> Any:
    """Return what has to be equal: of a protocol its name, as its rules make no prediction.

    Prompt, decoding and limits of images, which a new version may change, are recorded apart.
    """
    return str(value).partition("@")[0] if name == "protocol" else value


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."

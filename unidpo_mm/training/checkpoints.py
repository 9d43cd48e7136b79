"""Checkpoints that are complete or invisible.

A checkpoint is written into a staging directory inside the output directory. When every process has
written its files, a manifest with the size and checksum of each file is added, everything is synced
to disk, and the directory is renamed to ``checkpoint-N``. A process that is killed at any moment
leaves either no ``checkpoint-N`` or a complete one.

On resume, the newest checkpoint whose files match its manifest is used; newer ones that do not are
reported with the reason. Nothing in this module needs torch or a trainer.
"""

import contextlib
import dataclasses
import itertools
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xxhash
from pydantic import TypeAdapter

from ..atomic import sync_directory, sync_tree, write_text

__all__ = [
    "IDENTITY_FILE",
    "MANIFEST_FILE",
    "CheckpointDamaged",
    "Manifest",
    "checkpoint_path",
    "checkpoint_paths",
    "clean_up",
    "publish",
    "publish_files",
    "read_manifest",
    "rotate",
    "set_aside",
    "staging_directory",
    "step_of",
    "verify",
    "write_manifest",
]

MANIFEST_FILE = "manifest.json"
IDENTITY_FILE = "identity.json"
"""The file that describes the run of a checkpoint, see `identity.py`."""

FORMAT_VERSION = 1
STAGING = ".saving"
TRASH = ".deleting"
ASIDE = "set-aside"
NAME = re.compile(r"checkpoint-(\d+)")
LOADABLE = (".safetensors", ".bin", ".pt", ".pth", ".index.json")
"""Suffixes of files that loading a checkpoint would read."""

BLOCK = 1 << 22


class CheckpointDamaged(Exception):
    """An incomplete checkpoint, or one that differs from its manifest; the message says how."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The contents of a complete checkpoint.

    Attributes:
        step: Number of completed optimizer steps.
        max_steps: Number of optimizer steps of the run.
        resumable: Whether training can continue from it; False if it holds the model only.
        processes: Number of processes that wrote it.
        files: Relative path -> size in bytes and checksum (XXH3, 128 bits).
    """

    step: int
    max_steps: int
    resumable: bool
    processes: int
    files: Mapping[str, tuple[int, str]]


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Return the path of the checkpoint of a step."""
    return output_dir / f"checkpoint-{step}"


def checkpoint_paths(output_dir: Path) -> list[Path]:
    """Return all paths with the name of a checkpoint, newest first."""
    if not output_dir.is_dir():
        return []
    named = [path for path in output_dir.iterdir() if NAME.fullmatch(path.name)]
    return sorted(named, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """Return the step in the name of a checkpoint."""
    match = NAME.fullmatch(path.name)
    if match is None:
        raise ValueError(f"'{path.name}' is not the name of a checkpoint")
    return int(match[1])


def staging_directory(output_dir: Path) -> Path:
    """Return the directory in which checkpoints are written before they are complete."""
    return output_dir / STAGING


def write_manifest(
    folder: Path, *, step: int, max_steps: int, resumable: bool, processes: int
) -> None:
    """Describe the files of a directory in its manifest, the last file to be written."""
    manifest = Manifest(
        step=step,
        max_steps=max_steps,
        resumable=resumable,
        processes=processes,
        files={
            path.relative_to(folder).as_posix(): (path.stat().st_size, _checksum(path))
            for path in _files(folder)
        },
    )
    content = {"format": FORMAT_VERSION, **dataclasses.asdict(manifest)}
    signed = {**content, "checksum": _checksum_of(content)}
    write_text(folder / MANIFEST_FILE, json.dumps(signed, indent=1))


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a directory.

    Raises:
        CheckpointDamaged: If there is none, or it is damaged.
    """
    try:
        content = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        empty = not any(folder.iterdir())
        reason = f"it has no {MANIFEST_FILE}: it is incomplete, or another program wrote it"
        raise CheckpointDamaged("it is empty" if empty else reason) from None
    except (OSError, ValueError) as error:
        raise CheckpointDamaged(f"its {MANIFEST_FILE} cannot be read ({error})") from None
    try:
        checksum = content.pop("checksum")
        manifest = TypeAdapter(Manifest).validate_python(content)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise CheckpointDamaged(f"its {MANIFEST_FILE} is damaged") from None
    if checksum != _checksum_of(content):
        raise CheckpointDamaged(f"its {MANIFEST_FILE} is damaged")
    if content["format"] != FORMAT_VERSION:
        raise CheckpointDamaged("it was written by another version of unidpo-mm")
    return manifest


def verify(folder: Path) -> Manifest:
    """Compare every file of a directory with its manifest and return the manifest.

    Raises:
        CheckpointDamaged: At the first difference.
    """
    if not folder.is_dir():
        raise CheckpointDamaged("it is not a directory")
    manifest = read_manifest(folder)
    if NAME.fullmatch(folder.name) and step_of(folder) != manifest.step:
        raise CheckpointDamaged(f"it was renamed: it holds step {manifest.step}")
    for name, (size, digest) in manifest.files.items():
        _compare(folder, name, size, digest)
    if not NAME.fullmatch(folder.name):
        return manifest  # an output directory may hold other files
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in manifest.files and name.endswith(LOADABLE):
            raise CheckpointDamaged(f"'{name}' is not one of its files")
    return manifest


def _compare(folder: Path, name: str, size: int, digest: str) -> None:
    path = folder / name
    if not path.is_file():
        raise CheckpointDamaged(f"'{name}' is missing")
    try:
        if path.stat().st_size != size:
            raise CheckpointDamaged(f"'{name}' has {path.stat().st_size} bytes, not {size}")
        if _checksum(path) != digest:
            raise CheckpointDamaged(f"the content of '{name}' has changed")
    except OSError as error:
        raise CheckpointDamaged(f"'{name}' cannot be read ({error})") from None


def publish(staged: Path, target: Path) -> None:
    """Make a staged checkpoint visible under its name, in one step."""
    sync_tree(staged)
    if target.exists() or target.is_symlink():
        _discard([target])
    staged.rename(target)
    sync_directory(target.parent)


def publish_files(staged: Path, output_dir: Path) -> None:
    """Move a staged final model into the output directory, its manifest last.

    Files of an earlier final model that the new one does not have are removed. The run counts as
    finished only if the manifest exists.
    """
    sync_tree(staged)
    with contextlib.suppress(CheckpointDamaged):
        for name in read_manifest(output_dir).files.keys() - read_manifest(staged).files.keys():
            (output_dir / name).unlink(missing_ok=True)
    (output_dir / MANIFEST_FILE).unlink(missing_ok=True)
    for path in [*_files(staged), staged / MANIFEST_FILE]:
        target = output_dir / path.relative_to(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    sync_directory(output_dir)
    shutil.rmtree(staged, ignore_errors=True)


def rotate(output_dir: Path, limit: int | None, protected: Iterable[Path | None]) -> None:
    """Delete the oldest checkpoints beyond a limit, if there is one (`save_total_limit`).

    The newest and the protected ones, such as the best one, stay in any case.
    """
    paths = checkpoint_paths(output_dir)
    if not limit or limit < 0 or len(paths) <= limit:
        return
    kept_names = {path.name for path in (paths[0], *protected) if path is not None}
    surplus = len(paths) - max(limit, len(kept_names))
    oldest = [path for path in reversed(paths) if path.name not in kept_names]
    _discard(oldest[: max(surplus, 0)])


def set_aside(output_dir: Path, paths: Iterable[Path]) -> Path | None:
    """Move checkpoints and files of steps that this run repeats into a new directory.

    Returns:
        The directory, or `None` if there was nothing to move.
    """
    paths = list(paths)
    if not paths:
        return None
    candidates = (output_dir / f"{ASIDE}-{number}" for number in itertools.count(1))
    aside = next(path for path in candidates if not path.exists())
    aside.mkdir()
    for path in paths:
        target = aside / path.relative_to(output_dir)
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    sync_directory(output_dir)
    return aside


def clean_up(output_dir: Path) -> None:
    """Complete or remove what a killed process left behind; the caller holds the run's lock."""
    for staged in checkpoint_paths(staging_directory(output_dir)):
        target = output_dir / staged.name
        with contextlib.suppress(CheckpointDamaged):
            if not target.exists():
                verify(staged)  # the process was killed between manifest and rename
                publish(staged, target)
    for name in (STAGING, TRASH):
        shutil.rmtree(output_dir / name, ignore_errors=True)
    for path in output_dir.glob(".*.tmp"):  # see `atomic.write_text`
        path.unlink(missing_ok=True)


def _discard(paths: Iterable[Path]) -> None:
    """Delete checkpoints; rename them first, so that none is ever visible half deleted."""
    for path in paths:
        trash = path.parent / TRASH
        trash.mkdir(exist_ok=True)
        doomed = trash / path.name
        if doomed.is_dir() and not doomed.is_symlink():
            shutil.rmtree(doomed)
        path.rename(doomed)
        shutil.rmtree(trash, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    """Return the files below a directory except the manifest and hidden ones, in a fixed order."""
    paths = sorted(folder.rglob("*"))
    return [
        path
        for path in paths
        if not path.is_dir()
        and path != folder / MANIFEST_FILE
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _checksum(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _checksum_of(content: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True).encode()).hexdigest()

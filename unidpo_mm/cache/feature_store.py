"""Features of images on disk: one file for the images of a prompt, the least used go first."""

import contextlib
import os
import tempfile
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from .folder import cache_folder

__all__ = [
    "FeatureStore",
    "FeaturesInfo",
    "VerifiedFeatures",
    "features_folder",
    "stored_features",
    "verify_features",
]

SUFFIX = ".safetensors"
PART = ".part"
"""Suffix of a file that is being written."""
LEFT_OVER_S = 3600
"""Age of such a file after which its process must be gone."""
CHECKSUM = "crc32"
"""Name of the checksum in the metadata of a file."""


def features_folder(folder: Path | None = None) -> Path:
    """Return the folder of all stores of features, inside the cache folder."""
    return cache_folder(folder) / "features"


@dataclass(frozen=True, kw_only=True)
class FeaturesInfo:
    """What one store holds: its folder, entries, bytes on disk, and when it was last used."""

    path: Path
    entries: int
    size: int
    used: float


def stored_features(folder: Path | None = None) -> list[FeaturesInfo]:
    """Return every store of features in a folder."""
    found = []
    for path in sorted(p for p in (folder or features_folder()).glob("*") if p.is_dir()):
        files = [file.stat() for file in path.glob(f"*{SUFFIX}") if file.is_file()]
        used = max((file.st_mtime for file in files), default=path.stat().st_mtime)
        size = sum(file.st_size for file in files)
        found.append(FeaturesInfo(path=path, entries=len(files), size=size, used=used))
    return found


@dataclass(frozen=True, kw_only=True)
class VerifiedFeatures:
    """What a check of a store of features did: entries kept and removed, and why if it is gone."""

    path: Path
    kept: int
    removed: int
    reason: str = ""


def verify_features(folder: Path | None = None) -> list[VerifiedFeatures]:
    """Read every entry of every store and remove those that are damaged.

    A file in the place of a store is removed, and so are the unfinished files of killed processes.
    """
    stores = []
    for path in sorted((folder or features_folder()).glob("*")):
        if not path.is_dir():
            path.unlink(missing_ok=True)
            reason = "it is not a directory"
            stores.append(VerifiedFeatures(path=path, kept=0, removed=0, reason=reason))
            continue
        kept = removed = 0
        for file in sorted(path.iterdir()):
            if file.suffix == SUFFIX and _read(file) is not None:
                kept += 1
            elif file.suffix == SUFFIX or _is_left_over(file):
                removed += _is_gone(file)
        stores.append(VerifiedFeatures(path=path, kept=kept, removed=removed))
    return stores


def _is_left_over(path: Path) -> bool:
    """Return whether a file was begun so long ago that no process still writes it."""
    return path.suffix == PART and time.time() - path.stat().st_mtime > LEFT_OVER_S


def _is_gone(path: Path) -> bool:
    """Remove a damaged entry; return whether that was possible."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError:  # a directory that holds something, or a disk that cannot be written
        return False
    return True


def _read(path: Path) -> dict[str, Tensor] | None:
    """Return the tensors of a file; None if it cannot be read or its checksum is wrong."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            checksum = (file.metadata() or {}).get(CHECKSUM)
    except (SafetensorError, OSError):
        return None
    return tensors if checksum == _checksum(tensors) else None


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of tensors with their names."""
    value = 0
    for name in sorted(tensors):
        content = tensors[name].contiguous().flatten().view(torch.uint8).numpy().data
        value = zlib.crc32(content, zlib.crc32(name.encode(), value))
    return str(value)


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process has just removed it
        return 0


class FeatureStore:
    """The features that one frozen tower gives, by the keys of images.

    Files are put in place whole, so a process that is killed leaves none torn. A file that cannot
    be read counts as missing; one that cannot be written is not kept, since it can be computed.

    Args:
        fingerprint: Digest of the tower's weights and settings; names the folder.
        limit_bytes: Most bytes in the folder; the entries not used for longest are removed.
        folder: Folder of stores; None for the one in the cache folder.
    """

    def __init__(self, fingerprint: str, *, limit_bytes: int, folder: Path | None = None) -> None:
        self.folder = (folder or features_folder()) / fingerprint
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = (
                "Point UNIDPO_MM_CACHE to another directory; if a file is in the place of the "
                "directory, run unidpo-mm cache verify, which removes it"
            )
            problem = Problem(str(self.folder), f"the cache cannot be used: {error}", remedy)
            raise UniDPOError(problem) from error
        self.limit_bytes = limit_bytes
        self._size = sum(_size_of(path) for path in self.folder.glob(f"*{SUFFIX}"))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of an entry; None if there is none or it is damaged."""
        path = self._path(key)
        tensors = _read(path)
        if tensors is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # marks its use
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry and make room for it."""
        from safetensors.torch import save

        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(whole, metadata={CHECKSUM: _checksum(whole)})
        if len(content) > self.limit_bytes:
            return
        self._make_room(len(content))
        with contextlib.suppress(OSError):  # a full disk: the features are computed again
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=PART)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(name).replace(self._path(key))
                self._size += len(content)
            finally:
                Path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove every entry."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                path.unlink()
        self._size = 0

    def __len__(self) -> int:
        return sum(1 for _ in self.folder.glob(f"*{SUFFIX}"))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"

    def _make_room(self, needed: int) -> None:
        if self._size + needed <= self.limit_bytes:
            return
        known = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process was faster
                status = path.stat()
                known.append((status.st_mtime_ns, status.st_size, path))
        self._size = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if self._size + needed <= self.limit_bytes:
                break
            with contextlib.suppress(OSError):  # not a file, or not ours to remove
                path.unlink(missing_ok=True)
                self._size -= size

"""Image features on disk: one file per prompt; the least recently used are removed first."""

import contextlib
import os
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import Problem, UniDPOError
from .directory import cache_directory
from .stores import PART, Action, StoreCheck, StoreInfo, replacing

__all__ = ["FeatureStore", "list_features", "verify_features"]

SUFFIX = ".safetensors"
ABANDONED_S = 3600
"""Age in seconds from which no process still writes such a file."""
CHECKSUM = "crc32"
"""Name of the checksum in the metadata of a file."""


class FeatureStore:
    """The features that a frozen tower computes, by the keys of images.

    A file that cannot be read counts as missing. A failure to write is ignored, because features
    can be computed again.

    Args:
        fingerprint: Digest of the tower's weights and settings, the name of the directory.
        limit_bytes: Maximum size; the least recently used entries are removed.
        cache: Cache directory; None for the default.
    """

    def __init__(self, fingerprint: str, *, limit_bytes: int, cache: Path | None = None) -> None:
        self.directory = _stores(cache) / fingerprint
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            remedy = (
                "Point UNIDPO_MM_CACHE to another directory; if a file is in the place of the "
                "directory, run unidpo-mm cache verify, which removes it"
            )
            problem = Problem(str(self.directory), f"the cache cannot be used: {error}", remedy)
            raise UniDPOError(problem) from error
        self.limit_bytes = limit_bytes
        self._size = sum(size for _, size, _ in self._files())

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Return the tensors of an entry; None if it is missing or damaged."""
        path = self._path(key)
        tensors = _read(path)
        if tensors is not None:
            with contextlib.suppress(OSError):
                os.utime(path)  # marks its use
        return tensors

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry and make room for it."""
        from safetensors.torch import save

        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        content = save(on_cpu, metadata={CHECKSUM: _checksum(on_cpu)})
        if len(content) > self.limit_bytes:
            return
        self._make_room(len(content))
        with contextlib.suppress(OSError):  # a full disk: the features are computed again
            with replacing(self._path(key)) as temporary:
                temporary.write_bytes(content)
            self._size += len(content)

    def clear(self) -> None:
        """Remove every entry."""
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):
                path.unlink()
        self._size = 0

    def __len__(self) -> int:
        return sum(1 for _ in self.directory.glob(f"*{SUFFIX}"))

    def _path(self, key: str) -> Path:
        return self.directory / f"{key}{SUFFIX}"

    def _files(self) -> list[tuple[int, int, Path]]:
        """Return time of last use, size and path of every entry, the least recent first."""
        files = []
        for path in self.directory.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError):  # another process has just removed it
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        return sorted(files)

    def _make_room(self, needed: int) -> None:
        if self._size + needed <= self.limit_bytes:
            return
        files = self._files()
        self._size = sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._size + needed <= self.limit_bytes:
                break
            with contextlib.suppress(OSError):  # a directory, or the permission is missing
                path.unlink(missing_ok=True)
                self._size -= size


def list_features(cache: Path | None = None) -> list[StoreInfo]:
    """Return every feature store of a cache directory; None for the default one."""
    stores = []
    for path in sorted(path for path in _stores(cache).glob("*") if path.is_dir()):
        files = [file.stat() for file in path.glob(f"*{SUFFIX}") if file.is_file()]
        used = max((file.st_mtime for file in files), default=path.stat().st_mtime)
        size = sum(file.st_size for file in files)
        stores.append(
            StoreInfo(path=path, kind="features", entries=len(files), size=size, used=used)
        )
    return stores


def verify_features(cache: Path | None = None, *, dry_run: bool = False) -> Iterator[StoreCheck]:
    """Read every entry of every feature store and remove damaged ones.

    Also removes files in the place of a store, and incomplete files of killed processes.
    """
    for path in sorted(_stores(cache).glob("*")):
        if not path.is_dir():
            if not dry_run:
                path.unlink(missing_ok=True)
            action: Action = "damaged" if dry_run else "removed"
            reason = "not a directory"
            yield StoreCheck(path=path, kind="features", intact=0, action=action, reason=reason)
            continue
        intact = damaged = 0
        for file in sorted(path.iterdir()):
            if file.suffix == SUFFIX and _read(file) is not None:
                intact += 1
            elif file.suffix == SUFFIX or _is_abandoned(file):
                damaged += dry_run or _remove(file)
        yield StoreCheck(
            path=path,
            kind="features",
            intact=intact,
            damaged=damaged,
            action="intact" if not damaged else "damaged" if dry_run else "repaired",
        )


def _stores(cache: Path | None) -> Path:
    return cache_directory(cache) / "features"


def _is_abandoned(path: Path) -> bool:
    return path.suffix == PART and time.time() - path.stat().st_mtime > ABANDONED_S


def _remove(path: Path) -> bool:
    """Remove a damaged entry; return whether that was possible."""
    try:
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
    except OSError:  # a directory with content, or a disk that cannot be written
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
    """Return a checksum of tensors and their names."""
    value = 0
    for name in sorted(tensors):
        content = tensors[name].contiguous().flatten().view(torch.uint8).numpy().data
        value = zlib.crc32(content, zlib.crc32(name.encode(), value))
    return str(value)

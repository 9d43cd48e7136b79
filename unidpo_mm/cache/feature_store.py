"""Features of pictures on disk: one file for the pictures of a prompt, the least used go first."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .folder import cache_folder

__all__ = ["FeatureStore", "FeaturesInfo", "features_folder", "stored_features"]

SUFFIX = ".safetensors"


def features_folder(folder: Path | None = None) -> Path:
    """Returns the folder of all stores of features, inside the cache folder."""
    return cache_folder(folder) / "features"


@dataclass(frozen=True, kw_only=True)
class FeaturesInfo:
    """What one store holds: its folder, entries, bytes on disk, and when it was last used."""

    path: Path
    entries: int
    size: int
    used: float


def stored_features(folder: Path | None = None) -> list[FeaturesInfo]:
    """Returns every store of features in a folder."""
    found = []
    for path in sorted((folder or features_folder()).glob("*/")):
        files = [file.stat() for file in path.glob(f"*{SUFFIX}")]
        used = max((file.st_mtime for file in files), default=path.stat().st_mtime)
        size = sum(file.st_size for file in files)
        found.append(FeaturesInfo(path=path, entries=len(files), size=size, used=used))
    return found


class FeatureStore:
    """The features that one frozen tower gives, by the keys of pictures.

    Files are put in place whole, so a process that is killed leaves none torn. A file that cannot
    be read counts as missing; one that cannot be written is not kept, since it can be computed.

    Args:
        fingerprint: Digest of the tower's weights and settings; names the folder.
        limit_bytes: Most bytes in the folder; the entries not used for longest are removed.
        folder: Folder of stores; None for the one in the cache folder.
    """

    def __init__(self, fingerprint: str, *, limit_bytes: int, folder: Path | None = None) -> None:
        self.folder = (folder or features_folder()) / fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        self.limit_bytes = limit_bytes
        self._size = sum(path.stat().st_size for path in self.folder.glob(f"*{SUFFIX}"))

    def get(self, key: str) -> dict[str, Tensor] | None:
        """Returns the tensors of an entry, or None."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self._path(key)
        try:
            found: dict[str, Tensor] = load_file(path)
            os.utime(path)  # marks its use
        except (FileNotFoundError, SafetensorError, OSError):
            return None
        return found

    def put(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Writes an entry and makes room for it."""
        from safetensors.torch import save

        content = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        if len(content) > self.limit_bytes:
            return
        self._make_room(len(content))
        with contextlib.suppress(OSError):  # a full disk: the features are computed again
            handle, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                Path(name).replace(self._path(key))
                self._size += len(content)
            finally:
                Path(name).unlink(missing_ok=True)

    def clear(self) -> None:
        """Removes every entry."""
        for path in self.folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
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
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                status = path.stat()
                known.append((status.st_mtime_ns, status.st_size, path))
        self._size = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if self._size + needed <= self.limit_bytes:
                break
            path.unlink(missing_ok=True)
            self._size -= size

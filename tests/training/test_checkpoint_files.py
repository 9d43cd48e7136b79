"""Manifests, publishing, rotation and what a killed process leaves behind; no model is needed."""

import json
from pathlib import Path

import pytest

from unidpo_mm.training import checkpoints
from unidpo_mm.training.checkpoints import (
    CheckpointDamaged,
    checkpoint_paths,
    clean_up,
    publish,
    publish_files,
    rotate,
    set_aside,
    verify,
    write_manifest,
)
from unidpo_mm.training.resuming import choose_checkpoint


def stage(output_dir: Path, step: int, *, resumable: bool = True) -> Path:
    folder = output_dir / ".saving" / f"checkpoint-{step}"
    (folder / "parts").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(200)) * step)
    (folder / "parts" / "optimizer.pt").write_bytes(b"state" * step)
    write_manifest(folder, step=step, max_steps=9, resumable=resumable, processes=1)
    return folder


def save(output_dir: Path, *steps: int, resumable: bool = True) -> list[Path]:
    targets = [output_dir / f"checkpoint-{step}" for step in steps]
    for step, target in zip(steps, targets, strict=True):
        publish(stage(output_dir, step, resumable=resumable), target)
    return targets


def names(output_dir: Path) -> list[str]:
    return [path.name for path in checkpoint_paths(output_dir)]


def test_a_published_checkpoint_is_complete(tmp_path: Path) -> None:
    (target,) = save(tmp_path, 3)
    manifest = verify(target)
    assert (manifest.step, manifest.max_steps, manifest.resumable) == (3, 9, True)
    assert set(manifest.files) == {"model.safetensors", "parts/optimizer.pt"}
    assert not list((tmp_path / ".saving").iterdir())


@pytest.mark.parametrize("name", ["model.safetensors", "parts/optimizer.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["removed", "cut", "flipped", "directory"])
def test_every_damage_is_detected(tmp_path: Path, name: str, damage: str) -> None:
    (target,) = save(tmp_path, 2)
    path = target / name
    content = bytearray(path.read_bytes())
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif damage == "directory":
        path.mkdir()
    with pytest.raises(CheckpointDamaged):
        verify(target)


def test_a_renamed_checkpoint_and_additional_weights_are_detected(tmp_path: Path) -> None:
    first, second = save(tmp_path, 1, 2)
    first.rename(tmp_path / "checkpoint-7")
    with pytest.raises(CheckpointDamaged, match="it holds step 1"):
        verify(tmp_path / "checkpoint-7")
    (second / "notes.txt").write_text("a note is harmless")
    verify(second)
    (second / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointDamaged, match=r"'pytorch_model.bin' is not one of its files"):
        verify(second)


def test_the_newest_complete_checkpoint_is_chosen_and_the_others_are_reported(
    tmp_path: Path,
) -> None:
    save(tmp_path, 1, 2, 3)
    save(tmp_path, 4, resumable=False)
    (tmp_path / "checkpoint-3" / "model.safetensors").write_bytes(b"")
    (tmp_path / "checkpoint-5").mkdir()
    path, ignored = choose_checkpoint(tmp_path, reads=True)
    assert path == tmp_path / "checkpoint-2"
    assert [text.split(":")[0] for text in ignored] == [
        "checkpoint-5",
        "checkpoint-4",
        "checkpoint-3",
    ]
    assert "it is empty" in ignored[0]
    assert "it contains the model but no optimizer state" in ignored[1]
    assert "'model.safetensors' has 0 bytes, not 600" in ignored[2]


def test_no_checkpoint_is_chosen_if_none_is_complete(tmp_path: Path) -> None:
    assert choose_checkpoint(tmp_path / "missing", reads=True) == (None, [])
    (tmp_path / "checkpoint-5").write_text("a file")
    path, ignored = choose_checkpoint(tmp_path, reads=True)
    assert path is None
    assert ignored == ["checkpoint-5: it is not a directory"]


def test_a_save_that_was_killed_before_the_rename_is_completed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    stage(tmp_path, 2)
    half = stage(tmp_path, 3)
    (half / "manifest.json").unlink()
    (tmp_path / ".run.json.abc.tmp").write_text("half")
    clean_up(tmp_path)
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-1"]
    verify(tmp_path / "checkpoint-2")
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-1", "checkpoint-2"}


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    (target,) = save(tmp_path, 2)
    (target / "model.safetensors").write_bytes(b"damaged")
    save(tmp_path, 2)
    verify(target)
    assert names(tmp_path) == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (None, None, [5, 4, 3, 2, 1]),
        (2, None, [5, 4]),
        (1, None, [5]),
        (2, 1, [5, 1]),
        (1, 2, [5, 2]),  # the newest one to resume from, the best one to load at the end
        (3, 5, [5, 4, 3]),
    ],
)
def test_rotation_keeps_the_newest_and_the_best(
    tmp_path: Path, limit: int | None, best: int | None, left: list[int]
) -> None:
    save(tmp_path, 1, 2, 3, 4, 5)
    rotate(tmp_path, limit, [None if best is None else tmp_path / f"checkpoint-{best}"])
    assert names(tmp_path) == [f"checkpoint-{step}" for step in left]
    assert not (tmp_path / ".deleting").exists()


def test_checkpoints_of_another_run_are_moved_and_not_deleted(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    assert set_aside(tmp_path, []) is None
    first = set_aside(tmp_path, checkpoint_paths(tmp_path))
    save(tmp_path, 1)
    second = set_aside(tmp_path, checkpoint_paths(tmp_path))
    assert names(tmp_path) == []
    assert (first, second) == (tmp_path / "set-aside-1", tmp_path / "set-aside-2")
    assert names(tmp_path / "set-aside-1") == ["checkpoint-2", "checkpoint-1"]


def test_a_final_model_replaces_all_files_of_the_previous_one(tmp_path: Path) -> None:
    first = stage(tmp_path, 1)
    (first / "model-00001-of-00002.safetensors").write_bytes(b"shard")
    write_manifest(first, step=1, max_steps=1, resumable=False, processes=1)
    publish_files(first, tmp_path)
    (tmp_path / "samples.jsonl").write_text("kept")
    publish_files(stage(tmp_path, 2), tmp_path)
    assert verify(tmp_path).step == 2
    assert not (tmp_path / "model-00001-of-00002.safetensors").exists()
    assert (tmp_path / "samples.jsonl").read_text() == "kept"


def test_a_manifest_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target,) = save(tmp_path, 2)
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    with pytest.raises(CheckpointDamaged, match="another version"):
        verify(target)
    content = json.loads((target / "manifest.json").read_text())
    content["format"] = 2
    (target / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointDamaged, match="damaged"):
        verify(target)

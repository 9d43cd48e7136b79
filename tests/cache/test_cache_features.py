"""Feature stores: entries, their maximum size, and runs with cached features."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import IMAGE_TYPES, mixed_rows
from trainers import config, make_trainer, state_of

from unidpo_mm.cache.feature_store import FeatureStore
from unidpo_mm.config import LoraOptions

Checkpoint = Callable[[str], Path]


def entry(value: float) -> dict[str, torch.Tensor]:
    return {"image.0": torch.full((100,), value)}


def test_entries_are_read_as_they_were_written(tmp_path: Path) -> None:
    store = FeatureStore("a", limit_bytes=10**6, cache=tmp_path)
    store.put("x", entry(1.0))
    tensors = FeatureStore("a", limit_bytes=10**6, cache=tmp_path).get("x")
    assert tensors is not None
    assert torch.equal(tensors["image.0"], entry(1.0)["image.0"])
    assert store.get("y") is None
    assert FeatureStore("b", limit_bytes=10**6, cache=tmp_path).get("x") is None


def test_least_recently_used_entries_are_removed(tmp_path: Path) -> None:
    probe = FeatureStore("probe", limit_bytes=10**6, cache=tmp_path)
    probe.put("x", entry(0.0))
    size = next(probe.directory.iterdir()).stat().st_size
    store = FeatureStore("a", limit_bytes=3 * size, cache=tmp_path)
    for number, key in enumerate("xyz"):
        store.put(key, entry(float(number)))
        os.utime(store.directory / f"{key}.safetensors", (number, number))
    assert store.get("x") is not None  # used just now
    store.put("w", entry(9.0))
    assert {path.stem for path in store.directory.iterdir()} == {"x", "z", "w"}
    store.put("too large", {"image.0": torch.zeros(10_000)})
    assert len(store) == 3


def test_truncated_files_are_missing_and_a_full_disk_is_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FeatureStore("a", limit_bytes=10**6, cache=tmp_path)
    store.put("x", entry(1.0))
    path = store.directory / "x.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    assert store.get("x") is None

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    store.put("y", entry(2.0))
    monkeypatch.undo()
    assert store.get("y") is None
    assert not list(store.directory.glob("*.part"))


def count_calls_of_tower(trainer: Any, calls: list[int]) -> None:
    model = trainer.model.model
    name = next(n for n, _ in model.named_modules() if n.endswith(("vision_tower", "visual")))
    model.get_submodule(name).register_forward_hook(lambda *_: calls.append(1))


def types_and_layouts() -> list[Any]:
    """Return all model types with both layouts; quick are one layout per type and two types."""
    both = ("llava", "qwen3_vl_moe")
    return [
        (name, layout)
        if name in both or number % 2 == (layout == "packed")
        else pytest.param(name, layout, marks=pytest.mark.slow)
        for number, name in enumerate(IMAGE_TYPES)
        for layout in ("plain", "packed")
    ]


@pytest.mark.parametrize(("model_type", "layout"), types_and_layouts())
def test_cached_features_do_not_change_a_run(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    layout: str,
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    results, calls = [], []
    for gigabytes in (0.0, 0.1, 0.1):
        args = config(tmp_path, layout=layout, feature_cache_gb=gigabytes, max_steps=4)
        trainer = make_trainer(
            checkpoint(model_type),
            mixed_rows(images=True),
            args,
            peft_config=LoraOptions(r=4),
        )
        run_calls: list[int] = []
        count_calls_of_tower(trainer, run_calls)
        trainer.train()
        results.append(state_of(trainer))
        calls.append(len(run_calls))
    assert calls[0] > calls[1] >= 1  # the second epoch reads what the first wrote
    assert calls[2] == 0
    for other in results[1:]:
        assert all(torch.allclose(results[0][name], other[name], atol=1e-6) for name in other)


def test_features_of_trained_parts_are_not_cached(
    checkpoint: Checkpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    args = config(tmp_path, feature_cache_gb=1.0, freeze=["vision_tower"])
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), args)
    assert trainer.parts.features is None
    assert "not cached: the vision tower or projector is trained" in caplog.text

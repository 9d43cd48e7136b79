"""Cached references give the losses of live ones, are computed once, and are never outdated."""

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from builders import mixed_rows
from PIL import Image
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError, UniDPOError
from unidpo_mm.modeling.references.cached import CachedReference, InitialPolicy

Checkpoint = Callable[[str], Path]
MODES = {
    "full": {},
    "lora": {"peft_config": LoraOptions(r=4)},
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def square(red: int) -> Image.Image:
    return Image.new("RGB", (30, 40), (red, 10, 10))


def rows(**changed: Any) -> list[Any]:
    """Return text, math and image rows as dicts, which tests can change."""
    prompts = [
        {
            "prompt": "What is it? <image>",
            "images": [square(200)],
            "domain": "multimodal",
        },
        {"prompt": "What is 2 + 3?", "domain": "math"},
        {"prompt": "Who are you?"},
        {"prompt": "And this <image>?", "images": [square(20)]},
    ]
    answers = [{"text": "A red square", "score": 4}, {"text": "Blue", "score": 1}]
    return [{**row, "responses": answers, **changed} for row in prompts]


def losses(trainer: UniDPOTrainer) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def run(model: Path, folder: Path, data: Any = None, **settings: Any) -> UniDPOTrainer:
    kind = settings.pop("kind", {})
    args = config(folder, **{"max_steps": 4, **settings})
    trainer = make_trainer(model, rows() if data is None else data, args, **kind)
    trainer.train()
    return trainer


def computed(trainer: UniDPOTrainer) -> int:
    """Return the number of responses that a run had to compute."""
    assert isinstance(trainer.parts.reference, CachedReference)
    return trainer.parts.reference.computed


QUICK = (0b0000, 0b0111, 0b1011, 0b1101, 0b1110)
"""Numbers whose digits in base two have every combination in every two places."""


def combinations() -> list[Any]:
    """Return all combinations of four choices; five of them, with each pair of choices, are quick.

    Each of the choices is a single branch of the code, so the quick ones cover every branch with
    every other one.
    """
    choices = itertools.product(
        ("llava", "qwen2_vl"), MODES, ("before", "first_epoch"), ("plain", "joined")
    )
    slow = {"marks": pytest.mark.slow}
    return [
        pytest.param(*choice, **({} if number in QUICK else slow))
        for number, choice in enumerate(choices)
    ]


@pytest.mark.parametrize(("model_type", "mode", "build", "layout"), combinations())
def test_cached_and_live_references_give_the_same_run(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, mode: str, build: str, layout: str
) -> None:
    common = {"layout": layout, "kind": MODES[mode], "activation_checkpointing": True}
    live = run(checkpoint(model_type), tmp_path, **common)
    cached = run(
        checkpoint(model_type), tmp_path, reference="cached", reference_build=build, **common
    )
    assert losses(cached) == pytest.approx(losses(live), abs=1e-6)
    first = cached.state.log_history[0]
    assert first["nll_gate"] == 0.0
    live_state, cached_state = state_of(live), state_of(cached)
    assert all(
        torch.allclose(live_state[name], cached_state[name], atol=1e-6) for name in live_state
    )
    reference = cached.parts.reference
    assert isinstance(reference, CachedReference)
    assert isinstance(reference.source, InitialPolicy) is (mode == "full" and build == "before")
    assert reference.computed == len(reference.store) == 8


def test_rounding_in_other_batches_opens_no_gate(checkpoint: Checkpoint, tmp_path: Path) -> None:
    first = run(checkpoint("llava"), tmp_path, reference="cached", layout="plain")
    other = run(
        checkpoint("llava"), tmp_path, reference="cached", layout="packed",
        per_device_train_batch_size=4, data_seed=5,
    )  # fmt: skip
    assert computed(first) == 8
    assert computed(other) == 0
    assert other.state.log_history[0]["nll_gate"] == 0.0
    assert other.parts.settings.config.nll_gate_margin > 0


def test_a_killed_build_resumes(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = InitialPolicy.token_logps, []

    def killed(self: InitialPolicy, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(InitialPolicy, "token_logps", killed)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint("llava"), tmp_path, reference="cached")
    monkeypatch.setattr(InitialPolicy, "token_logps", original)
    again = run(checkpoint("llava"), tmp_path, reference="cached")
    assert computed(again) == 8 - 4  # one batch was kept


@pytest.fixture(scope="module")
def filled(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache of a run with the rows that the next test changes."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIDPO_MM_CACHE", str(folder / "cache"))
        run(checkpoint("llava"), folder, reference="cached", per_device_train_batch_size=1)
    return folder / "cache"


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ("nothing", 0),
        ("an image", 2),
        ("an answer", 1),
        ("a prompt", 2),
        ("a weight", 8),
        ("the number format", 8),
        ("the score", 0),
    ],
)
def test_only_identical_inputs_are_read_from_the_cache(
    checkpoint: Checkpoint, filled: Path, tmp_path: Path, cache: Path, changed: str, missed: int
) -> None:
    model = checkpoint("llava")
    shutil.copytree(filled, cache)
    data, settings = rows(), {"reference": "cached", "per_device_train_batch_size": 1}
    if changed == "an image":
        data[0]["images"] = [square(201)]
    elif changed == "an answer":
        data[1]["responses"] = [{"text": "A red squares", "score": 4}, data[1]["responses"][1]]
    elif changed == "a prompt":
        data[2]["prompt"] = "Who are you??"
    elif changed == "the score":
        data[1]["responses"] = [{"text": "A red square", "score": 9}, data[1]["responses"][1]]
    elif changed == "the number format":
        settings["bf16"] = True
    elif changed == "a weight":
        import transformers

        changed_model = transformers.AutoModelForImageTextToText.from_pretrained(model)
        with torch.no_grad():
            next(changed_model.model.language_model.parameters()).view(-1)[0] += 1e-6
        changed_model.save_pretrained(tmp_path / "changed")
        transformers.AutoProcessor.from_pretrained(model).save_pretrained(tmp_path / "changed")
        model = tmp_path / "changed"
    before = len(list((tmp_path / "cache/references").glob("*.sqlite")))
    trainer = run(model, tmp_path, data, **settings)
    reference = trainer.parts.reference
    assert isinstance(reference, CachedReference)
    assert missed == (8 if before != len(list(reference.store.path.parent.glob("*.sqlite"))) else
                      len(reference.store) - 8)  # fmt: skip


def test_a_resumed_run_reads_its_references_from_the_cache(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    settings = {"reference": "cached", "save_strategy": "steps", "save_steps": 2}
    straight = run(checkpoint("llava"), tmp_path / "a", **settings)
    resumed = make_trainer(
        checkpoint("llava"), rows(), config(tmp_path / "b", max_steps=4, **settings)
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    expected, actual = state_of(straight), state_of(resumed)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)
    assert computed(resumed) == 0


def test_missing_references_of_a_trained_policy_are_reported(
    checkpoint: Checkpoint, tmp_path: Path, cache: Path
) -> None:
    settings = {"reference": "cached", "save_strategy": "steps", "save_steps": 2}
    run(checkpoint("llava"), tmp_path / "a", **settings)
    for path in (cache / "references").iterdir():
        path.unlink()
    resumed = make_trainer(checkpoint("llava"), rows(), config(tmp_path / "b", **settings))
    with pytest.raises(ModelError, match="missing in the cache and the policy has been trained"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))


@pytest.mark.parametrize("mode", MODES)
def test_a_full_disk_stops_only_a_run_that_needs_it(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
) -> None:
    args = config(tmp_path, reference="cached", max_steps=4)
    trainer = make_trainer(checkpoint("llava"), rows(), args, **MODES[mode])
    reference = trainer.parts.reference
    assert isinstance(reference, CachedReference)
    full = UniDPOError("the disk is full")  # tests/cache fills a store in earnest
    monkeypatch.setattr(reference.store, "put", Mock(side_effect=full))
    if mode == "full":
        with pytest.raises(UniDPOError, match="the disk is full"):
            trainer.train()
        return
    trainer.train()
    assert caplog.text.count("continuing without a cache for the reference") == 1
    live = run(checkpoint("llava"), tmp_path, kind=MODES[mode])
    assert losses(trainer) == pytest.approx(losses(live), abs=1e-6)


def test_a_frozen_part_is_not_copied_and_a_cached_run_copies_nothing(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    trainer = make_trainer(
        checkpoint("llava"), mixed_rows(images=True), config(tmp_path, reference="cached")
    )
    assert isinstance(trainer.parts.reference, CachedReference)
    assert not hasattr(trainer.parts.reference.source, "logp_model")

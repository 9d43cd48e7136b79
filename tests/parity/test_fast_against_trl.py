"""Packed rows, shared images and cached references have the loss and gradient of TRL's step.

Both sides get the same pairs and weights, which differ from the reference so that the loss is not
trivial. TRL runs every pair as two separate rows.
"""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image, relative_difference
from torch import Tensor
from trainers import config

from unidpo_mm import UniDPOTrainer

# warnings about calls of TRL
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default::FutureWarning")]

Checkpoint = Callable[[str], Path]
Step = tuple[float, dict[str, Tensor]]

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "max_grad_norm": 0.0,
    "max_steps": 1,
}

RESPONSES = ("The answer is 7.", "Two red squares", "Eight circles, is it?", "Nothing at all")


def groups(*, images: bool, responses: int) -> list[dict[str, Any]]:
    """Prompts with ranked responses, as ours take them."""
    rows = []
    for number in range(2):
        texts = [f"{text} {'Hello ' * number}" for text in RESPONSES[:responses]]
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": "What is shown? " * (2 + number)}],
            "responses": [{"text": text, "score": float(-n)} for n, text in enumerate(texts)],
        }
        rows.append({**row, "images": [make_image(number)]} if images else row)
    return rows


def as_pairs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same preferences as TRL takes them."""
    return [
        {key: row[key] for key in ("prompt", "images") if key in row}
        | {
            side: [{"role": "assistant", "content": response["text"]}]
            for side, response in (("chosen", better), ("rejected", worse))
        }
        for row in rows
        for better, worse in itertools.combinations(row["responses"], 2)
    ]


def one_step(trainer: Any, plain_model: Any) -> Step:
    """Change the weights, then return the loss of all pairs and its gradient."""
    batch = next(iter(trainer.get_train_dataloader()))
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _, parameter in sorted(plain_model.named_parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=noise)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    grads = {n: p.grad.clone() for n, p in plain_model.named_parameters() if p.grad is not None}
    return float(loss.detach()), grads


def theirs(folder: Path, rows: list[dict[str, Any]], tmp_path: Path) -> Step:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    pairs = as_pairs(rows)
    args = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        **{**SETTINGS, "per_device_train_batch_size": len(pairs)},
    )
    trainer = DPOTrainer(model=str(folder), args=args, train_dataset=Dataset.from_list(pairs))
    return one_step(trainer, trainer.model)


def ours(folder: Path, rows: list[dict[str, Any]], tmp_path: Path, **settings_: Any) -> Step:
    settings = {
        **SETTINGS,
        "per_device_train_batch_size": len(as_pairs(rows)),
        "loss_type": "sigmoid",
        "freeze": [],
        **settings_,
    }
    trainer = UniDPOTrainer(str(folder), config(tmp_path, **settings), train_dataset=rows)
    if settings.get("reference") == "cached":  # the first pass computes, the second one reads
        trainer.evaluate(rows)
    return one_step(trainer, trainer.model.model)


def assert_same(left: Step, right: Step) -> None:
    assert left[0] == pytest.approx(right[0], abs=2e-5)
    assert relative_difference(left[1], right[1]) < 2e-5


@pytest.mark.parametrize("responses", [2, 4])
@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_loss_and_gradient_are_trls(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    responses: int,
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    folder, rows = checkpoint(model_type), groups(images=model_type != "llama", responses=responses)
    expected = theirs(folder, rows, tmp_path)
    assert abs(expected[0] - 0.693) > 1e-3  # the weights differ from the reference
    live = ours(folder, rows, tmp_path, layout="packed")
    assert_same(live, expected)
    settings_ = {"layout": "joined", "reference": "cached", "reference_build": "first_epoch"}
    cached = ours(folder, rows, tmp_path, **settings_)
    assert_same(cached, expected)
    other = ours(folder, rows, tmp_path, beta=0.11)
    with pytest.raises(AssertionError):
        assert_same(other, expected)

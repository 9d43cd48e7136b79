"""Rows are packed if that does not change results; otherwise the run reports the reason."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mixed_rows, row
from trainers import config, make_trainer, state_of

from unidpo_mm.config import LoraOptions
from unidpo_mm.data import collate
from unidpo_mm.errors import ModelError
from unidpo_mm.kernels import packing
from unidpo_mm.training.console import layout_line

Checkpoint = Callable[[str], Path]


def trained(folder: Path, tmp_path: Path, **settings: Any) -> Any:
    trainer = make_trainer(
        folder, mixed_rows(images=True), config(tmp_path, loss_type="dpo", **settings)
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("model_type", ["llava_onevision", "qwen2_vl"])
def test_packed_and_plain_runs_end_in_the_same_weights(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    folder = checkpoint(model_type)
    layouts = ["plain", "packed", "joined"]
    runs = [trained(folder, tmp_path / layout, layout=layout) for layout in layouts]
    assert [run.layout.layout for run in runs] == layouts
    plain, *others = (state_of(run) for run in runs)
    for other in others:
        for name, weight in plain.items():
            torch.testing.assert_close(other[name], weight, rtol=1e-5, atol=2e-6)


def test_auto_joins_rows_if_possible_and_reports_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint("llava"), mixed_rows(images=True), config(tmp_path))
    assert trainer.layout.layout == "joined"
    assert "once for all responses, without padding" in layout_line(trainer.layout, trainer.parts)
    batch = next(iter(trainer.get_train_dataloader()))["batch"]
    assert batch.inputs.layout == "joined"


def test_layouts_are_compared_in_the_precision_of_training_steps(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """A trained projector is float32 and the tower bfloat16, which autocast combines."""
    trainer = make_trainer(
        checkpoint("llava"),
        mixed_rows(images=True),
        config(tmp_path, bf16=True, model_init_kwargs={"dtype": "bfloat16"}, max_steps=1),
        peft_config=LoraOptions(r=4, modules_to_save=["projector"]),
    )
    assert trainer.layout.layout == "joined"
    trainer.train()


def test_groups_are_not_joined_if_that_needs_a_mask(tmp_path: Path) -> None:
    """A sliding window needs a mask, whose size is quadratic in that of the batch."""
    from unidpo_mm.plugins import load_family

    folder = load_family("text").tiny(tmp_path / "m", model_type="mistral", sliding_window=8)
    trainer = make_trainer(folder, mixed_rows(images=False), config(tmp_path))
    assert trainer.layout.layout == "packed"
    assert layout_line(trainer.layout, trainer.parts).endswith("once for all responses")
    args = config(tmp_path, layout="joined")
    assert make_trainer(folder, mixed_rows(images=False), args).layout.layout == "joined"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"disable_dropout": False}, "dropout would differ between the layouts"),
        (
            {"model_init_kwargs": {"attn_implementation": "eager"}},
            "kernel 'eager' does not accept custom masks",
        ),
        ({"layout": "plain"}, "as configured"),
    ],
    ids=["dropout", "eager", "plain"],
)
def test_the_report_has_the_reason_for_plain_rows(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    reason: str,
) -> None:
    monkeypatch.setattr(packing, "KERNELS", ("sdpa",))  # here, eager represents flash attention
    rows = mixed_rows(images=False)
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, **settings))
    assert trainer.layout.layout == "plain"
    line = layout_line(trainer.layout, trainer.parts)
    assert reason in line
    groups = [trainer.parts.adapter.encode(row) for row in rows]
    answers = sum(ids.numel() for group in groups for ids in group.response_ids)
    prompts = sum(group.prompt_ids.numel() for group in groups)
    repeated = sum(group.prompt_ids.numel() * len(group.response_ids) for group in groups)
    cost = (repeated + answers) / (prompts + answers)
    assert f"run once for each response, which costs {cost:.2f} times the tokens" in line
    assert cost > 1.1


def test_single_responses_are_joined_or_stay_plain(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row("a", "x", ("y",), (1.0,), pairs=()), row("b", "z " * 9, ("w",), (1.0,), pairs=())]
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, loss_type="sft"))
    assert trainer.layout.layout == "joined"
    monkeypatch.setattr(packing, "KERNELS", ("sdpa",))  # here, eager represents flash attention
    settings = {"loss_type": "sft", "model_init_kwargs": {"attn_implementation": "eager"}}
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, **settings))
    line = layout_line(trainer.layout, trainer.parts)
    assert line.endswith("run once for each response (each prompt has one response)")


def test_requesting_packed_rows_is_an_error_if_they_are_impossible(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        packing, "KERNELS", ("sdpa",)
    )  # like flash attention, which is not installed
    args = config(tmp_path, layout="packed", model_init_kwargs={"attn_implementation": "eager"})
    with pytest.raises(ModelError, match=r"model.layout: rows cannot be packed: .*'eager'"):
        make_trainer(checkpoint("llama"), mixed_rows(images=False), args)


def test_rows_stay_plain_if_packed_responses_would_see_each_other(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attention ignores the segments of a row, as in a state-space model."""
    spans = collate._spans

    def as_one_response(*args: Any) -> Any:
        return tuple((*span[:4], sum(span[4:])) for span in spans(*args))

    monkeypatch.setattr(collate, "_spans", as_one_response)
    rows = mixed_rows(images=False)
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path))
    assert trainer.layout.layout == "plain"
    assert "packed log-probs differ from plain ones by" in layout_line(
        trainer.layout, trainer.parts
    )


def test_rows_stay_plain_if_packed_rows_raise_an_error(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise IndexError("no such span")

    monkeypatch.setattr(collate, "_spans", broken)
    trainer = make_trainer(checkpoint("llama"), mixed_rows(images=False), config(tmp_path))
    assert trainer.layout.layout == "plain"
    assert "packed rows fail with IndexError: no such span" in trainer.layout.reason
    with pytest.raises(ModelError, match="cannot be joined: packed rows fail"):
        make_trainer(
            checkpoint("llama"), mixed_rows(images=False), config(tmp_path, layout="joined")
        )


def test_a_packed_run_saves_an_ordinary_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    rows = mixed_rows(images=False)
    trainer = make_trainer(checkpoint("llama"), rows, config(tmp_path, layout="packed"))
    trainer.train()
    trainer.save_model()
    assert "packed" not in (tmp_path / "config.json").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"

"""The report of a run, from the command line, from Python, and of records with gaps."""

import html
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from support.forked_runs import preload, train
from support.runs import write_run
from trainers import config
from transformers import TrainerCallback

from unidpo_mm import UniDPOTrainer
from unidpo_mm.ledger.alarms import Alarm
from unidpo_mm.report import RunRecord, report_page
from unidpo_mm.report.curves import panels

Checkpoint = Callable[[str], Path]

STATE = {
    "global_step": 20,
    "max_steps": 40,
    "log_history": [
        {"step": 10, "loss": 0.75, "w_qual": 0.5, "w_perf": 0.9, "rewards/accuracies": 0.5},
        {"step": 10, "eval_loss": 0.7, "eval_rewards/accuracies": 0.4},
        {"step": 20, "loss": 0.5, "w_qual": 0.6, "w_perf": 0.4, "rewards/accuracies": 0.75},
        {"step": 20, "eval_loss": 0.6, "eval_rewards/accuracies": 0.625},
    ],
}


@pytest.fixture(scope="module")
def run(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output directory of a finished run with held-out rows."""
    folder = tmp_path_factory.mktemp("run")
    os.environ["UNIDPO_MM_CACHE"] = str(folder / "cache")
    preload()
    write_run(folder, checkpoint("llava"))
    (end,) = train(folder, "train.max_steps=4", "train.save_steps=2", "train.logging_steps=1")
    assert end.code == 0, end.output
    return folder / "out"


def text_of(page: str) -> str:
    """Return the visible text of a page."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_a_run_has_a_report_beside_its_checkpoints(run: Path) -> None:
    page = (run / "report.html").read_text()
    text = text_of(page)
    assert "4 of 4 steps." in text
    assert "out" in text
    assert "Loss" in text
    settings = json.loads((run / "run.json").read_text())
    assert f"torch {settings['versions']['torch']}" in text
    assert settings["loss"]["name"] in text
    assert f"unidpo-mm ledger html {run}" in text or "unidpo-mm ledger html out" in text
    assert "http" not in page  # nothing is loaded from elsewhere


def test_every_logged_value_is_in_a_curve(run: Path) -> None:
    state = json.loads((run / "trainer_state.json").read_text())
    page = (run / "report.html").read_text()
    losses = [log for log in state["log_history"] if "loss" in log]
    assert len(losses) == 4
    for log in losses:
        assert f"training, step {log['step']}: {log['loss']:.4g}" in page


def test_a_run_from_python_has_a_report_too(checkpoint: Checkpoint, tmp_path: Path) -> None:
    rows = [
        {"prompt": f"What is {n}?", "chosen": "Seven", "rejected": "Eight or nine"}
        for n in range(4)
    ]
    args = config(tmp_path / "out", max_steps=2, loss_type="sigmoid", learning_rate=1e-3)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"])
    UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=rows, peft_config=lora).train()
    text = text_of((tmp_path / "out" / "report.html").read_text())
    assert '{"r": 4, "alpha": 8, "targets": ["q_proj"]}' in html.unescape(text)
    assert "optim sgd" in text  # the value, and not OptimizerNames.SGD
    assert "lr_scheduler_type constant" in text
    assert "2 of 2 steps." in text
    assert "learning_rate 0.001" in text
    assert "dpo" in text


def test_an_earlier_report_is_replaced_when_training_begins(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").write_text("an earlier run")
    pages = []

    class Look(TrainerCallback):
        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            pages.append((tmp_path / "out" / "report.html").read_text())

    rows = [{"prompt": "What is 3?", "chosen": "Seven", "rejected": "Eight or nine"}]
    args = config(tmp_path / "out", max_steps=1, loss_type="sigmoid")
    UniDPOTrainer(str(checkpoint("llama")), args, train_dataset=rows, callbacks=[Look()]).train()
    assert "step 0 of 1 when this report was written" in pages[0]


def test_the_figures_to_look_at_first_are_first_and_last_values() -> None:
    record = RunRecord(directory=Path("out"), state=STATE)
    text = text_of(report_page(record, [], ended=False))
    assert "step 20 of 40 when this report was written" in text
    assert "40.0% → 62.5% held-out pairs ranked right" in text
    assert "0.75 → 0.5 training loss" in text
    assert "w_qual 0.5 0.6" in text


def test_alarms_are_shown_with_their_advice() -> None:
    alarm = Alarm("flat", "All weights are <equal>.", "Raise eta.")
    page = report_page(RunRecord(directory=Path("out"), state=STATE), [alarm], ended=True)
    assert "All weights are &lt;equal&gt;." in page
    assert "Raise eta." in page
    assert "Raise eta" not in text_of(report_page(RunRecord(directory=Path("out")), [], ended=True))


def test_texts_of_a_recipe_cannot_become_markup_and_secrets_are_masked() -> None:
    recipe: dict[str, Any] = {
        "model": {"name_or_path": "<script>alert(1)</script>"},
        "data": {"sources": [{"path": "a.jsonl", "scores": {"judge": "`<b>`"}}]},
        "train": {"learning_rate": 1.0e-3, "optim": "hf_" + "a" * 34},
    }
    page = report_page(RunRecord(directory=Path("o"), recipe=recipe), [], ended=True)
    assert "<script>alert" not in page
    assert "<code>&lt;b&gt;</code>" in page
    assert "hf_aaaa" not in page


def test_a_record_without_logs_or_with_infinite_ones_has_a_page() -> None:
    assert panels([]) == []
    logs = [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}]
    assert panels(logs) == []
    assert "<h1>" in report_page(RunRecord(directory=Path("out")), [], ended=False)


def test_a_long_curve_keeps_its_extremes_and_its_ends() -> None:
    logs = [{"step": n, "loss": 1.0 + (n == 3_333) - (n == 7_777)} for n in range(1, 10_001)]
    ((curve,),) = [panel.curves for panel in panels(logs)]
    assert len(curve.points) < 500
    texts = [text for _, _, text in curve.points]
    assert texts[0].startswith("training, step 1:")
    assert texts[-1].startswith("training, step 10000:")
    assert {"training, step 3333: 2", "training, step 7777: 0"} <= set(texts)


def test_the_command_for_the_ledger_is_quoted_and_only_shown_with_one() -> None:
    record = RunRecord(directory=Path("my runs/out"), state=STATE)
    assert "ledger html &#39;my runs/out&#39; --output" in report_page(record, [], ended=True)
    assert "ledger html" not in report_page(record, [], ended=True, has_ledger=False)
    assert "20 of 40 steps." in text_of(report_page(record, [], ended=True))  # stopped early


@pytest.mark.parametrize("values", [[0.5], [3.0, 3.0], [-1e-9, 1e9], [0.1, 0.11, 0.105], [-4, -2]])
def test_curves_stay_inside_their_panel_and_ticks_are_round(values: list[float]) -> None:
    logs = [{"step": number, "loss": value} for number, value in enumerate(values, start=1)]
    (panel,) = panels(logs)
    for x, y, _ in panel.curves[0].points:
        assert panel.left <= x <= panel.right
        assert 0 <= y <= panel.height
    assert 2 <= len(panel.ticks) <= 7
    assert all(0 <= y <= panel.height for y, _ in panel.ticks)
    assert all(len(text) <= 7 for _, text in panel.ticks)

"""Benchmarks during training: logged with the other metrics, without an effect on training."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from builders import mixed_rows
from support.eval_commands import run, text_of
from support.small_benchmarks import option_table, varied_checkpoint
from trainers import config, make_trainer, state_of
from transformers import TrainerCallback
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.run.callback import BenchmarkCallback, from_recipe

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.config import load_recipe
from unidpo_mm.errors import RecipeError
from unidpo_mm.training.run import trainer_for


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


def callback(folder: Path, **extra: Any) -> BenchmarkCallback:
    data = option_table(folder)
    settings: dict[str, Any] = {"every": 2, "clusters": 5, "max_new_tokens": 4}
    return BenchmarkCallback(data=data, benchmarks=("ai2d",), **(settings | extra))


def trained(folder: Path, checkpoint: Path, *callbacks: Any) -> Any:
    rows, args = mixed_rows(images=True), config(folder / "out", max_steps=3)
    trainer = make_trainer(checkpoint, rows, args, callbacks=list(callbacks))
    trainer.train()
    return trainer


def test_benchmarks_are_logged_and_do_not_change_training(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("with", "without"):
        (tmp_path / name).mkdir()
    requests = trained(tmp_path / "with", checkpoint, callback(tmp_path / "with"))
    plain = trained(tmp_path / "without", checkpoint)
    for name, tensor in state_of(plain).items():
        assert torch.equal(tensor, state_of(requests)[name]), name
    logged = [
        (log["step"], log["benchmarks/ai2d/accuracy"])
        for log in requests.state.log_history
        if "benchmarks/ai2d/accuracy" in log
    ]
    assert [step for step, _ in logged] == [0, 2, 3]
    folder = tmp_path / "with" / "out" / "benchmarks"
    for step, value in logged:
        result = read_result(folder / f"step-{step}" / "ai2d.json")
        assert result.metrics["accuracy"] == value
        assert result.metrics["n_clusters"] == 5
    done = run("compare", folder / "step-0" / "ai2d.json", folder / "step-3" / "ai2d.json")
    assert done.exit_code == 0, text_of(done)
    assert "step-3 against step-0" in done.output


def test_losses_and_benchmarks_of_a_step_are_both_logged_and_printed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Tracker(TrainerCallback):
        """Accept metrics until training ends, as experiment trackers do."""

        def __init__(self) -> None:
            self.logged: list[tuple[int, set[str]]] = []
            self.open = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if self.open:
                self.logged.append((state.global_step, set(logs)))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.open = False

    tracker = Tracker()
    rows = mixed_rows(images=True)
    args = config(tmp_path / "out", max_steps=3, logging_steps=1, disable_tqdm=False)
    callbacks = [tracker, callback(tmp_path, every=1)]
    make_trainer(checkpoint, rows, args, callbacks=callbacks).train()
    for name in ("loss", "benchmarks/ai2d/accuracy"):
        steps = [step for step, names in tracker.logged if name in names]
        assert steps == ([1, 2, 3] if name == "loss" else [0, 1, 2, 3]), name
    printed = capsys.readouterr().err
    for step in (1, 2, 3):
        assert f"step {step}/3" in printed
        assert f"step {step}  AI2D test: accuracy " in printed


def test_a_run_that_a_signal_ends_is_not_evaluated(checkpoint: Path, tmp_path: Path) -> None:
    rows, args = mixed_rows(images=True), config(tmp_path / "out", max_steps=2)
    requests = callback(tmp_path, every=1, at_start=False)
    trainer = make_trainer(checkpoint, rows, args, callbacks=[requests])
    trainer.interruption = SimpleNamespace(received=15)
    requests.on_step_end(args, SimpleNamespace(global_step=1, max_steps=2), trainer.control)
    requests.on_train_end(args, SimpleNamespace(global_step=2, max_steps=2), trainer.control)
    assert not (tmp_path / "out" / "benchmarks").exists()


def test_the_variables_of_the_run_are_used(checkpoint: Path, tmp_path: Path) -> None:
    off = {"enable_thinking": False}
    for name, settings, expected in (("run", {}, off), ("own", {"chat_template_kwargs": {}}, {})):
        (tmp_path / name).mkdir()
        requests = callback(tmp_path / name, **settings)
        options = AdapterOptions(chat_template_kwargs=off)
        adapter = SimpleNamespace(options=options)
        trainer: Any = SimpleNamespace(parts=SimpleNamespace(adapter=adapter))
        assert requests._run_settings(trainer).chat_template_kwargs == expected


def test_the_callback_gives_the_result_of_eval_run(checkpoint: Path, tmp_path: Path) -> None:
    trainer = trained(tmp_path, checkpoint, callback(tmp_path, every=100, clusters=100))
    trainer.save_model()
    out = tmp_path / "asked"
    done = run("run", tmp_path / "out", "-b", "ai2d", "--data", tmp_path / "AI2D_TEST.tsv",
               "--output", out, "--max-new-tokens", 4, "--name", "tuned",
               "--dtype", "float32")  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    after = read_result(out / "tuned" / "ai2d.json").per_sample
    looked = read_result(tmp_path / "out" / "benchmarks" / "step-3" / "ai2d.json").per_sample
    assert [item.response for item in looked] == [item.response for item in after]


def test_responses_in_an_unexpected_format_cause_a_warning(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="unidpo_mm_eval.run.callback"):
        trained(tmp_path, checkpoint, callback(tmp_path))
    text = " ".join(record.getMessage() for record in caplog.records)
    assert "AI2D test: before training, only 0 % of the responses have the expected format" in text
    assert "Check that the chat template is the model's own" in text
    assert "100 % of the responses are truncated" in text


def test_a_recipe_enables_the_callback(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"What is {n}?", "chosen": "The answer.", "rejected": "Eight",
             "score_chosen": 4, "score_rejected": 1} for n in range(4)]  # fmt: skip
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = option_table(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""
model: {{name_or_path: {checkpoint}}}
data: {{sources: [{{path: {pairs}}}]}}
train: {{output_dir: {tmp_path / "out"}, max_steps: 2, report_to: none}}
run:
  callbacks:
    benchmarks: {{benchmarks: [ai2d], data: {data}, every: 1, clusters: 3, max_new_tokens: 3}}
""")
    trainer = trainer_for(load_recipe(recipe, []))
    trainer.train()
    steps = [log["step"] for log in trainer.state.log_history if "benchmarks/ai2d/accuracy" in log]
    assert steps == [0, 1, 2]
    with pytest.raises(RecipeError, match="unknown callback 'benchmark', did you mean"):
        trainer_for(load_recipe(recipe, ["run.callbacks={benchmark: {}}"]))


def test_invalid_settings_are_reported_immediately(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        from_recipe({"data": str(tmp_path), "every": "often", "clusterz": 3})
    text = str(refused.value)
    assert "run.callbacks.benchmarks.every" in text
    assert "run.callbacks.benchmarks.clusterz" in text

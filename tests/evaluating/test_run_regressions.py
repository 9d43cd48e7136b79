"""Regressions in runs, pairs and judges."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import load_tiny, make_image
from support.eval_commands import run, text_of, unwrapped
from support.small_benchmarks import (
    option_table,
    predictions,
    responses_of,
    run_arguments,
    varied_checkpoint,
)
from support.stub_server import prompt_text, server
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.judge.duel import Matchup
from unidpo_mm_eval.prefs.evaluation import cluster_of
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.run.callback import BenchmarkCallback

from unidpo_mm.data.load import rows_from_records
from unidpo_mm.errors import RecipeError
from unidpo_mm.inference.generation import response_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


def pope(folder: Path) -> Path:
    rows = [
        {"question_id": n, "image": f"{n}.png", "text": f"Is it {n}?", "label": "yes"}
        for n in range(3)
    ]
    path = folder / "coco_pope_random.json"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_questions_without_image_are_repeated_once_it_exists(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, out = pope(tmp_path), tmp_path / "out"
    line = run_arguments(checkpoint, data, out, "pope", "--protocol", "official")
    make_image(0).save(tmp_path / "0.png")
    assert run(*line).exit_code == 0
    first = predictions(out / "llava" / "pope.jsonl")
    assert ["error" in item for item in first.values()] == [False, True, True]
    for n in (1, 2):
        make_image(n).save(tmp_path / f"{n}.png")
    assert run(*line).exit_code == 0
    second = predictions(out / "llava" / "pope.jsonl")
    assert not any("error" in item for item in second.values())
    assert second["0"] == first["0"]
    assert list(second) == ["0", "1", "2"]


def test_a_request_that_a_server_refuses_does_not_stop_the_others(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    state = {"refuses": True}

    def speak(request: Any, before: int) -> Any:
        return 400 if state["refuses"] and "Which is 4?" in prompt_text(request) else "A"

    with server(speak) as stub:
        line = ("run", "--endpoint", stub.url, "--served-model", "x", "-b", "ai2d", "--data", data,
                "--output", out)  # fmt: skip
        assert run(*line).exit_code == 0
        actual = predictions(out / "x" / "ai2d.jsonl")
        assert "refused: status 400" in actual["4"]["error"]
        state["refuses"] = False
        before = len(stub.requests)
        assert run(*line).exit_code == 0
        assert len(stub.requests) == before + 1
    assert responses_of(out / "x" / "ai2d.jsonl")["4"] == "A"


def test_results_with_different_settings_are_not_compared(checkpoint: Path, tmp_path: Path) -> None:
    data, paths = option_table(tmp_path), {}
    for name, options in {
        "usual": (),
        "raw": ("--style", "raw"),
        "plain": ("--prompt", "plain"),
        "long": ("--max-new-tokens", "3"),
        "named": ("--prompt", "vlmevalkit-qwen2vl"),  # the protocol's own, for another family
    }.items():
        line = ("run", checkpoint, "-b", "ai2d", "--data", data, "--output", tmp_path / "out",
                "--name", name, "--max-new-tokens", "2", *options)  # fmt: skip
        assert run(*line).exit_code == 0
        paths[name] = tmp_path / "out" / name / "ai2d.json"
    for name in ("raw", "plain", "long"):
        assert "its way of prompting is" in text_of(run("compare", paths["usual"], paths[name]))
    assert run("compare", paths["usual"], paths["named"]).exit_code == 0


def test_rewards_of_another_kind_are_not_compared(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Hello {n}", "chosen": "Eight", "rejected": "The answer"} for n in range(3)]
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    actual = {}
    for name, options in {
        "alone": (),
        "other": ("--reference", checkpoint),
        "beta": ("--reference", checkpoint, "--beta", "0.5"),
    }.items():
        out = tmp_path / name
        done = run("prefs", checkpoint, "--data", pairs, "--output", out, *options)
        assert done.exit_code == 0, text_of(done)
        actual[name] = out / "llava" / "preferences.json"
    assert "its reference is" in text_of(run("compare", actual["alone"], actual["other"]))
    assert "its beta is" in text_of(run("compare", actual["beta"], actual["other"]))
    assert read_result(actual["beta"]).manifest["beta"] == 0.5


def test_a_reference_of_another_family_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = varied_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hello", "chosen": "Eight", "rejected": "Two"}\n')
    line = (
        "prefs",
        checkpoint,
        "--data",
        pairs,
        "--output",
        tmp_path / "out",
        "--reference",
        other,
    )
    assert "'qwen2_vl' is of another family" in text_of(run(*line))


def test_prompts_with_the_same_beginning_are_separate_clusters() -> None:
    long = "You are a helpful assistant. " * 20
    rows = rows_from_records(
        [{"prompt": f"{long}{n}", "chosen": "a", "rejected": "b"} for n in (1, 1, 2)]
    )
    actual = [cluster_of(row) for row in rows]
    assert actual[0] == actual[1] != actual[2]


def test_pairs_are_refused_before_generation(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hello", "chosen": "Eight", "rejected": "Two"}\n')
    out = tmp_path / "out"
    done = run(*run_arguments(checkpoint, pairs, out, "preferences"))
    assert "Use `unidpo-mm eval prefs`" in text_of(done)
    assert not out.exists()
    with pytest.raises(RecipeError, match="scored by a judge"):
        BenchmarkCallback(data=tmp_path, benchmarks=("mmhal",))
    with pytest.raises(RecipeError, match=r"run\.callbacks\.benchmarks\.every"):
        BenchmarkCallback(data=tmp_path, benchmarks=("ai2d",), every=0)


def test_options_that_would_be_ignored_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = option_table(tmp_path)
    assert "'chta' is not one of" in text_of(
        run(*run_arguments(checkpoint, data, tmp_path / "out", "ai2d", "--style", "chta"))
    )
    line = run_arguments(checkpoint, data, tmp_path / "out", "ai2d", "--served-model", "x")
    assert "require --endpoint" in unwrapped(run(*line))
    served = ("run", "--endpoint", "http://127.0.0.1:9/v1", "--served-model", "x", "-b", "ai2d",
              "--data", data, "--output", tmp_path / "out", "--style", "raw")  # fmt: skip
    assert "the server renders prompts" in unwrapped(run(*served))
    predictions_file = tmp_path / "mine.jsonl"
    predictions_file.write_text('{"id": "0", "response": "A"}\n')
    judged = (
        "score",
        "-b",
        "ai2d",
        "--data",
        data,
        "--predictions",
        predictions_file,
        "--judge",
        "local:x",
    )
    assert "is scored without a judge under vlmevalkit" in unwrapped(run(*judged))


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [(1, 2, "win"), (-1, -2, "loss"), (0, 1, "tie"), (1, -1, "tie"), (0, 0, "tie"),
     (None, 1, "error")],
)  # fmt: skip
def test_a_win_requires_both_orders(first: Any, second: Any, outcome: str) -> None:
    assert Matchup(id="1", first=first, second=second).outcome == outcome


def test_a_duel_needs_questions_with_both_responses(tmp_path: Path) -> None:
    files = []
    for name, key in (("a", "0"), ("b", "1")):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(json.dumps({"id": key, "response": "A"}) + "\n")
    line = ("duel", *files, "-b", "ai2d", "--data", option_table(tmp_path), "--judge",
            "http://127.0.0.1:9/v1", "--judge-model", "J")  # fmt: skip
    assert "no sample has a response in both files" in text_of(run(*line))


def test_parts_of_an_instruction_may_hold_anything(tmp_path: Path) -> None:
    table = tmp_path / "mia.tsv"
    head = "index\tquestion\tcomponents\tcomponent_weight\ttype\n"
    table.write_text(head + "1\tQ\t\"['a\\nb', 'c']\"\t[4, 6]\tx\n2\tQ\t['a']\t[0]\tx\n")
    with pytest.raises(Exception, match="points above 0") as refused:
        load_benchmark("mia_bench").read(table, False)
    assert "row 2" in str(refused.value)
    assert "row 1" not in str(refused.value)


def test_a_text_that_ends_an_answer_is_never_part_of_it(checkpoint: Path) -> None:
    adapter = load_tiny(checkpoint).adapter
    ids = adapter.processor.tokenizer("red square STOP blue", add_special_tokens=False)["input_ids"]
    end = adapter.processor.tokenizer.eos_token_id
    stop = "square" if "STOP" not in adapter.decode(ids) else "STOP"
    filled = [*ids, end, end]
    alone, together = (response_of(item, adapter, {end}, [stop], 9) for item in (ids, filled))
    assert alone == together
    assert stop not in alone.text

"""What a critical reading of runs, pairs and judges found: each test holds one of the findings."""

import json
from pathlib import Path
from typing import Any

import pytest
from asking import option_table, predictions, said, talking_checkpoint, words
from builders import load_tiny, picture
from scores import run, told
from served import server, words_of
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.judge.duel import Bout
from unidpo_mm_eval.prefs.run import _cluster
from unidpo_mm_eval.results.result import read_result
from unidpo_mm_eval.run.callback import BenchmarkCallback

from unidpo_mm.data.load import rows_from_records
from unidpo_mm.errors import RecipeError
from unidpo_mm.training.generation import _answer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_checkpoint(tmp_path_factory.mktemp("model") / "llava", "llava")


def pope(folder: Path) -> Path:
    rows = [
        {"question_id": n, "image": f"{n}.png", "text": f"Is it {n}?", "label": "yes"}
        for n in range(3)
    ]
    path = folder / "coco_pope_random.json"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_questions_without_picture_are_asked_again_where_it_is_there(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, out = pope(tmp_path), tmp_path / "out"
    line = words(checkpoint, data, out, "pope", "--protocol", "official")
    picture(0).save(tmp_path / "0.png")
    assert run(*line).exit_code == 0
    first = predictions(out / "llava" / "pope.jsonl")
    assert ["error" in one for one in first.values()] == [False, True, True]
    for n in (1, 2):
        picture(n).save(tmp_path / f"{n}.png")
    assert run(*line).exit_code == 0
    second = predictions(out / "llava" / "pope.jsonl")
    assert not any("error" in one for one in second.values())
    assert second["0"] == first["0"]
    assert list(second) == ["0", "1", "2"]


def test_a_question_that_a_server_refuses_does_not_stop_the_others(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    state = {"refuses": True}

    def speak(request: Any, before: int) -> Any:
        return 400 if state["refuses"] and "Which is 4?" in words_of(request) else "A"

    with server(speak) as stub:
        line = ("run", "--endpoint", stub.url, "--served-model", "x", "-b", "ai2d", "--data", data,
                "--out", out)  # fmt: skip
        assert run(*line).exit_code == 0
        found = predictions(out / "x" / "ai2d.jsonl")
        assert "refused: status 400" in found["4"]["error"]
        state["refuses"] = False
        before = len(stub.requests)
        assert run(*line).exit_code == 0
        assert len(stub.requests) == before + 1
    assert said(out / "x" / "ai2d.jsonl")["4"] == "A"


def test_results_that_were_asked_for_otherwise_are_not_compared(
    checkpoint: Path, tmp_path: Path
) -> None:
    data, paths = option_table(tmp_path), {}
    for name, more in {
        "usual": (),
        "raw": ("--style", "raw"),
        "plain": ("--prompt", "plain"),
        "long": ("--max-new-tokens", "3"),
        "named": ("--prompt", "vlmevalkit-qwen2vl"),  # the protocol's own, for another family
    }.items():
        line = ("run", checkpoint, "-b", "ai2d", "--data", data, "--out", tmp_path / "out",
                "--name", name, "--max-new-tokens", "2", *more)  # fmt: skip
        assert run(*line).exit_code == 0
        paths[name] = tmp_path / "out" / name / "ai2d.json"
    for name in ("raw", "plain", "long"):
        assert "its way of asking is" in told(run("compare", paths["usual"], paths[name]))
    assert run("compare", paths["usual"], paths["named"]).exit_code == 0


def test_rewards_of_another_kind_are_not_compared(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Hello {n}", "chosen": "Eight", "rejected": "The answer"} for n in range(3)]
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = {}
    for name, more in {
        "alone": (),
        "other": ("--reference", checkpoint),
        "beta": ("--reference", checkpoint, "--beta", "0.5"),
    }.items():
        out = tmp_path / name
        done = run("prefs", checkpoint, "--data", pairs, "--out", out, *more)
        assert done.exit_code == 0, told(done)
        found[name] = out / "llava" / "preferences.json"
    assert "its reference is" in told(run("compare", found["alone"], found["other"]))
    assert "its beta is" in told(run("compare", found["beta"], found["other"]))
    assert read_result(found["beta"]).manifest["beta"] == 0.5


def test_a_reference_has_the_same_words(checkpoint: Path, tmp_path: Path) -> None:
    other = talking_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hello", "chosen": "Eight", "rejected": "Two"}\n')
    line = ("prefs", checkpoint, "--data", pairs, "--out", tmp_path / "out", "--reference", other)
    assert "'qwen2_vl' is of another family" in told(run(*line))


def test_prompts_that_begin_alike_are_clusters_of_their_own() -> None:
    long = "You are a helpful assistant. " * 20
    rows = rows_from_records(
        [{"prompt": f"{long}{n}", "chosen": "a", "rejected": "b"} for n in (1, 1, 2)]
    )
    found = [_cluster(row) for row in rows]
    assert found[0] == found[1] != found[2]


def test_pairs_are_refused_before_anything_is_asked(checkpoint: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "Hello", "chosen": "Eight", "rejected": "Two"}\n')
    out = tmp_path / "out"
    done = run(*words(checkpoint, pairs, out, "preferences"))
    assert "Use `unidpo-mm eval prefs`" in told(done)
    assert not out.exists()
    with pytest.raises(RecipeError, match="scored by a judge"):
        BenchmarkCallback(data=tmp_path, benchmarks=("mmhal",))
    with pytest.raises(RecipeError, match=r"run\.callbacks\.benchmarks\.every"):
        BenchmarkCallback(data=tmp_path, benchmarks=("ai2d",), every=0)


def test_options_that_would_be_ignored_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    data = option_table(tmp_path)
    assert "no style 'chta', did you mean 'chat'" in told(
        run(*words(checkpoint, data, tmp_path / "out", "ai2d", "--style", "chta"))
    )
    line = words(checkpoint, data, tmp_path / "out", "ai2d", "--served-model", "x")
    assert "these are of a server" in run(*line).output
    served = ("run", "--endpoint", "http://127.0.0.1:9/v1", "--served-model", "x", "-b", "ai2d",
              "--data", data, "--out", tmp_path / "out", "--style", "raw")  # fmt: skip
    assert "a server renders prompts" in run(*served).output
    mine = tmp_path / "said.jsonl"
    mine.write_text('{"id": "0", "response": "A"}\n')
    judged = ("score", "-b", "ai2d", "--data", data, "--predictions", mine, "--judge", "local:x")
    assert "is scored by rules under vlmevalkit" in " ".join(run(*judged).output.split())


@pytest.mark.parametrize(
    ("first", "second", "outcome"),
    [(1, 2, "win"), (-1, -2, "loss"), (0, 1, "tie"), (1, -1, "tie"), (0, 0, "tie"),
     (None, 1, "error")],
)  # fmt: skip
def test_a_win_is_what_both_orders_say(first: Any, second: Any, outcome: str) -> None:
    assert Bout(id="1", first=first, second=second).outcome == outcome


def test_a_duel_needs_questions_that_both_answered(tmp_path: Path) -> None:
    files = []
    for name, own in (("a", "0"), ("b", "1")):
        files.append(tmp_path / f"{name}.jsonl")
        files[-1].write_text(json.dumps({"id": own, "response": "A"}) + "\n")
    line = ("duel", *files, "-b", "ai2d", "--data", option_table(tmp_path), "--judge",
            "http://127.0.0.1:9/v1", "--judge-model", "J")  # fmt: skip
    assert "no question of the data is answered in both files" in told(run(*line))


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
    alone, together = (_answer(one, adapter, {end}, [stop], 9) for one in (ids, filled))
    assert alone == together
    assert stop not in alone.text

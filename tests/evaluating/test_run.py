"""`eval run`: answers do not depend on batches, processes, or how often a run was killed."""

import json
from pathlib import Path
from typing import Any

import pytest
from asking import math_lines, option_table, predictions, said, talking_checkpoint, words
from builders import MODEL_TYPES, PICTURE_TYPES
from scores import run, told
from unidpo_mm_eval.run.store import PredictionStore

from unidpo_mm.errors import DataError


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def checkpoint(model_type: str) -> Path:
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type) / model_type
            made[model_type] = talking_checkpoint(folder, model_type)
        return made[model_type]

    return checkpoint


def asked(checkpoint: Path, folder: Path, benchmark: str, *more: Any) -> Path:
    """Runs a benchmark on a tiny model and returns its file of predictions."""
    data = math_lines(folder) if benchmark == "gsm8k" else option_table(folder)
    out = folder / "out"
    done = run(*words(checkpoint, data, out, benchmark, *more))
    assert done.exit_code == 0, told(done)
    return out / checkpoint.name / f"{benchmark}.jsonl"


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_answers_do_not_depend_on_the_batch(
    checkpoints: Any, model_type: str, tmp_path: Path
) -> None:
    benchmark = "ai2d" if model_type in PICTURE_TYPES else "gsm8k"
    found = {}
    for size in (1, 3, 8):
        folder = tmp_path / str(size)
        folder.mkdir()
        path = asked(checkpoints(model_type), folder, benchmark, "--batch-size", size)
        found[size] = said(path)
    assert found[1] == found[3] == found[8]
    assert len(set(found[1].values())) > 1  # a model that says one thing would prove nothing


def test_a_question_alone_is_answered_as_in_its_batch(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint, data = checkpoints("qwen2_vl"), option_table(tmp_path)
    done = run(*words(checkpoint, data, tmp_path / "out", "ai2d", "--check", 4))
    assert "asked alone: all of 4 answers are the same" in done.output


def test_a_file_says_how_its_predictions_were_made(checkpoints: Any, tmp_path: Path) -> None:
    path = asked(checkpoints("qwen2_vl"), tmp_path, "ai2d")
    manifest = json.loads(path.read_text().splitlines()[0])["manifest"]
    assert manifest["prompt"] == "vlmevalkit-qwen2vl@1"
    assert (manifest["style"], manifest["dtype"], manifest["rows"]) == ("chat", "float32", 11)
    assert manifest["decoding"]["max_new_tokens"] == 6
    shown = manifest["first_prompt"]["text"]
    assert "Question: Which is 0? \nOptions:\nA. two\nB. red\nPlease select" in shown
    assert "tokens of pictures]" in shown
    one = predictions(path)["3"]
    assert {"response", "finish_reason", "new_tokens", "batch", "prompt", "tokens", "pictures"} <= {
        *one
    }
    result = json.loads(path.with_suffix(".json").read_text())
    assert result["manifest"]["weights"] == manifest["weights"]
    assert list(predictions(path)) == [str(n) for n in range(11)]  # the order of the data


def test_cut_at_any_byte_a_run_goes_on_to_the_same_file(checkpoints: Any, tmp_path: Path) -> None:
    """What a kill leaves is a beginning of the file; twenty beginnings, torn lines among them."""
    checkpoint = checkpoints("llava")
    whole = asked(checkpoint, tmp_path, "ai2d", "--batch-size", 2)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    order = sorted(lines[1:], key=lambda line: json.loads(line)["batch"])
    appended = lines[0] + b"".join(order)  # as it was while the model answered
    parts = whole.with_suffix(".parts")
    for cut in range(0, len(appended), len(appended) // 19):
        whole.unlink(missing_ok=True)
        parts.mkdir(exist_ok=True)
        (parts / "0.jsonl").write_bytes(appended[:cut])
        assert asked(checkpoint, tmp_path, "ai2d", "--batch-size", 2).read_bytes() == content
        assert not parts.exists()


def test_what_other_processes_left_is_not_asked_again(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unidpo_mm_eval.run import generate as answering

    checkpoint = checkpoints("llava")
    whole = asked(checkpoint, tmp_path, "ai2d", "--batch-size", 4)
    content = whole.read_bytes()
    lines = content.splitlines(keepends=True)
    whole.unlink()
    parts = whole.with_suffix(".parts")
    parts.mkdir()
    for rank in range(2):  # two processes were killed, one of them with a torn line
        mine = [line for line in lines[1:] if json.loads(line)["batch"] % 2 == rank]
        (parts / f"{rank}.jsonl").write_bytes(lines[0] + b"".join(mine))
    with (parts / "1.jsonl").open("ab") as file:
        file.write(b'{"id": "10", "resp')
    monkeypatch.setattr(answering, "greedy_answers", lambda *_, **__: pytest.fail("asked again"))
    assert asked(checkpoint, tmp_path, "ai2d", "--batch-size", 4).read_bytes() == content


def test_predictions_made_otherwise_are_refused(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("llava")
    asked(checkpoint, tmp_path, "ai2d")
    data, out = tmp_path / "AI2D_TEST.tsv", tmp_path / "out"
    other = words(checkpoint, data, out, "ai2d", "--style", "raw", "--prompt", "plain")
    text = told(run(*other))
    assert "it holds predictions that were made otherwise" in text
    assert 'style was "chat" and is "raw"' in text
    assert 'prompt was "vlmevalkit-default@1" and is "plain@1"' in text
    assert run(*other, "--overwrite").exit_code == 0


def test_a_broken_picture_is_an_error_and_counts_as_wrong(checkpoints: Any, tmp_path: Path) -> None:
    data = option_table(tmp_path)
    rows = data.read_text().splitlines(keepends=True)
    cells = rows[3].split("\t")
    rows[3] = "\t".join([*cells[:-1], "bm8gcGljdHVyZQ" * 8 + "\r\n"])
    data.write_text("".join(rows), newline="")
    done = run(*words(checkpoints("qwen2_vl"), data, tmp_path / "out", "ai2d"))
    assert done.exit_code == 0, told(done)
    found = predictions(tmp_path / "out" / "qwen2_vl" / "ai2d.jsonl")
    assert "cannot be read" in found["2"]["error"]
    assert sum("error" in one for one in found.values()) == 1
    result = json.loads((tmp_path / "out" / "qwen2_vl" / "ai2d.json").read_text())
    assert result["metrics"]["error_rate"] == pytest.approx(100 / 11)


def test_memory_that_runs_out_halves_the_batch(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from unidpo_mm_eval.run import generate as answering

    checkpoint = checkpoints("llava")
    whole = said(asked(checkpoint, tmp_path, "ai2d"))
    real, sizes = answering.greedy_answers, []

    def small(model: Any, adapter: Any, prompts: Any, **more: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("full")
        return real(model, adapter, prompts, **more)

    monkeypatch.setattr(answering, "greedy_answers", small)
    path = asked(checkpoint, tmp_path, "ai2d", "--overwrite")
    assert said(path) == whole
    assert sizes[:3] == [8, 4, 2]


def test_several_checkpoints_are_compared(checkpoints: Any, tmp_path: Path) -> None:
    first, second = checkpoints("llava"), checkpoints("qwen2_vl")
    out = tmp_path / "out"
    done = run(*words(first, option_table(tmp_path), out, "ai2d"), str(second))
    assert done.exit_code == 0, told(done)
    assert "against the first, corrected p" in done.output
    assert (out / "report.md").is_file()
    assert "better than llava" in (out / "ai2d.html").read_text()


def test_lora_matrices_answer_as_the_merged_model(checkpoints: Any, tmp_path: Path) -> None:
    import torch
    from builders import load_tiny
    from peft import LoraConfig, get_peft_model

    base = checkpoints("qwen2_vl")
    loaded = load_tiny(base)
    torch.manual_seed(2)
    tuned = get_peft_model(loaded.model, LoraConfig(target_modules=["q_proj", "v_proj"]))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    lora, merged = tmp_path / "run" / "checkpoint-3", tmp_path / "whole"
    tuned.save_pretrained(lora)
    tuned.merge_and_unload().save_pretrained(merged)
    loaded.adapter.processor.save_pretrained(merged)
    out = tmp_path / "out"
    done = run(*words(base, option_table(tmp_path), out, "ai2d"), str(lora), str(merged))
    assert done.exit_code == 0, told(done)
    names = ("qwen2_vl", "run-checkpoint-3", "whole")
    answers = [said(out / name / "ai2d.jsonl") for name in names]
    assert answers[1] == answers[2] != answers[0]
    lines = (out / "run-checkpoint-3" / "ai2d.jsonl").read_text().splitlines()
    weights = json.loads(lines[0])["manifest"]["weights"]
    assert weights.count("+") == 1  # of the model and of the matrices


def test_the_control_asks_about_other_pictures(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("qwen2_vl")
    own = predictions(asked(checkpoint, tmp_path, "ai2d"))
    out = tmp_path / "shuffled"
    done = run(*words(checkpoint, option_table(tmp_path), out, "ai2d", "--shuffle-pictures", 0))
    assert done.exit_code == 0, told(done)
    other = predictions(out / checkpoint.name / "ai2d.jsonl")
    assert all(own[n]["pictures"] != other[n]["pictures"] for n in own)
    assert {one["pictures"] for one in own.values()} == {one["pictures"] for one in other.values()}
    assert own["1"]["prompt"] == other["1"]["prompt"]


def test_what_cannot_run_is_told_at_once(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("llava")
    suite = ("run", checkpoint, "--suite", "quick", "--data", tmp_path, "--out", tmp_path / "out")
    text = told(run(*suite))
    assert all(name in text for name in ("POPE", "OCRBench", "SEEDBench", "ChartQA"))
    assert "suite 'quick': of its 4 benchmarks 0 are there" in text
    assert "Name --benchmark or --suite" in told(
        run("run", checkpoint, "--data", tmp_path, "--out", tmp_path)
    )
    data = option_table(tmp_path)
    twice = words(checkpoint, data, tmp_path / "out", "ai2d")
    assert "several checkpoints are called llava" in told(run(*twice, str(checkpoint)))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither config.json nor adapter_config.json" in told(
        run(*words(empty, data, tmp_path / "out", "ai2d"))
    )


def test_pictures_are_looked_for_before_a_model_is_loaded(checkpoints: Any, tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "nowhere.png", "text": "Is it?", "label": "yes"}
    data = tmp_path / "coco_pope_random.json"
    data.write_text(json.dumps(row) + "\n")
    line = words(checkpoints("llava"), data, tmp_path / "out", "pope", "--protocol", "official")
    text = told(run(*line))
    assert "of 1 pictures not one can be opened" in text
    assert "Name the folder of the pictures by --images" in text
    assert not (tmp_path / "out").exists()
    missing = run(*words(tmp_path / "nowhere", option_table(tmp_path), tmp_path / "out", "ai2d"))
    assert "checkpoint '" in told(missing)


def test_the_control_is_marked_where_it_is_read(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint, data = checkpoints("llava"), option_table(tmp_path)
    for out, more in (("a", ()), ("b", ("--shuffle-pictures", 0))):
        assert run(*words(checkpoint, data, tmp_path / out, "ai2d", *more)).exit_code == 0
    results = [tmp_path / out / "llava" / "ai2d.json" for out in "ab"]
    output = run("compare", *results).output
    assert "llava, shuffled pictures against llava" in output
    assert "the control: every picture is that of another" in run("report", results[1]).output
    assert run("report", tmp_path / "a").exit_code == 0  # a folder of results


def test_a_store_refuses_what_is_no_prediction(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"manifest": {"a": 1}}\nno json\n')
    with pytest.raises(DataError, match=r"x\.jsonl row 2: it is no prediction of a run"):
        PredictionStore(path, {"a": 1}).open()

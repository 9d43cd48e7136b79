"""`eval run`: responses do not depend on batches, processes or kills."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders import IMAGE_TYPES, MODEL_TYPES
from support.eval_commands import run, text_of
from support.small_benchmarks import (
    math_lines,
    option_table,
    predictions,
    responses_of,
    run_arguments,
    varied_checkpoint,
)
from unidpo_mm_eval.run.store import PredictionStore

from unidpo_mm.errors import DataError


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def checkpoint(model_type: str) -> Path:
        if model_type not in made:
            folder = tmp_path_factory.mktemp(model_type) / model_type
            made[model_type] = varied_checkpoint(folder, model_type)
        return made[model_type]

    return checkpoint


def requests(checkpoint: Path, folder: Path, benchmark: str, *options: Any) -> Path:
    """Run a benchmark on a tiny model and return its file of predictions."""
    data = math_lines(folder) if benchmark == "gsm8k" else option_table(folder)
    out = folder / "out"
    done = run(*run_arguments(checkpoint, data, out, benchmark, *options))
    assert done.exit_code == 0, text_of(done)
    return out / checkpoint.name / f"{benchmark}.jsonl"


@pytest.mark.parametrize("sizes", [(4,), pytest.param((3, 8), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_responses_do_not_depend_on_the_batch(
    checkpoints: Any, model_type: str, sizes: tuple[int, ...], tmp_path: Path
) -> None:
    """The last batch is smaller than the others."""
    benchmark = "ai2d" if model_type in IMAGE_TYPES else "gsm8k"
    actual = {}
    for size in (1, *sizes):
        folder = tmp_path / str(size)
        folder.mkdir()
        path = requests(checkpoints(model_type), folder, benchmark, "--batch-size", size)
        actual[size] = responses_of(path)
    assert all(responses == actual[1] for responses in actual.values())
    assert len(set(actual[1].values())) > 1  # a model that says one thing would prove nothing


def test_a_single_question_gets_the_response_of_its_batch(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint, data = checkpoints("qwen2_vl"), option_table(tmp_path)
    done = run(*run_arguments(checkpoint, data, tmp_path / "out", "ai2d", "--verify-batching", 4))
    assert "regenerated individually: all 4 responses are equal" in done.output


def test_a_prediction_file_records_its_settings(checkpoints: Any, tmp_path: Path) -> None:
    path = requests(checkpoints("qwen2_vl"), tmp_path, "ai2d")
    manifest = json.loads(path.read_text().splitlines()[0])["manifest"]
    assert manifest["prompt"] == "vlmevalkit-qwen2vl@1"
    assert (manifest["style"], manifest["dtype"], manifest["rows"]) == ("chat", "float32", 11)
    assert manifest["decoding"]["max_new_tokens"] == 6
    printed = manifest["first_prompt"]["text"]
    assert "Question: Which is 0? \nOptions:\nA. two\nB. red\nPlease select" in printed
    assert "image tokens]" in printed
    item = predictions(path)["3"]
    assert {"response", "finish_reason", "new_tokens", "batch", "prompt", "tokens", "images"} <= {
        *item
    }
    result = json.loads(path.with_suffix(".json").read_text())
    assert result["manifest"]["weights"] == manifest["weights"]
    assert list(predictions(path)) == [str(n) for n in range(11)]  # the order of the data


@pytest.mark.parametrize("pieces", [5, pytest.param(19, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_byte_resumes_to_the_same_file(
    checkpoints: Any, tmp_path: Path, pieces: int
) -> None:
    """A kill leaves a beginning of the file, which is empty or ends in an incomplete line."""
    checkpoint = checkpoints("llava")
    full = requests(checkpoint, tmp_path, "ai2d", "--batch-size", 2)
    content = full.read_bytes()
    lines = content.splitlines(keepends=True)
    order = sorted(lines[1:], key=lambda line: json.loads(line)["batch"])
    appended = lines[0] + b"".join(order)  # as it was while the model answered
    parts = full.with_suffix(".parts")
    for cut in range(0, len(appended), len(appended) // pieces):
        full.unlink(missing_ok=True)
        parts.mkdir(exist_ok=True)
        (parts / "0.jsonl").write_bytes(appended[:cut])
        assert requests(checkpoint, tmp_path, "ai2d", "--batch-size", 2).read_bytes() == content
        assert not parts.exists()


def test_responses_of_other_processes_are_not_generated_again(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoints("llava")
    full = requests(checkpoint, tmp_path, "ai2d", "--batch-size", 4)
    content = full.read_bytes()
    lines = content.splitlines(keepends=True)
    full.unlink()
    parts = full.with_suffix(".parts")
    parts.mkdir()
    for rank in range(2):  # two processes were killed, one of them with a torn line
        predictions_file = [line for line in lines[1:] if json.loads(line)["batch"] % 2 == rank]
        (parts / f"{rank}.jsonl").write_bytes(lines[0] + b"".join(predictions_file))
    with (parts / "1.jsonl").open("ab") as file:
        file.write(b'{"id": "10", "resp')
    from unidpo_mm.inference import local_model

    def generate(*_: Any, **__: Any) -> None:
        pytest.fail("a stored response was generated again")

    monkeypatch.setattr(local_model, "generate_responses", generate)
    assert requests(checkpoint, tmp_path, "ai2d", "--batch-size", 4).read_bytes() == content


def test_predictions_made_otherwise_are_refused(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("llava")
    requests(checkpoint, tmp_path, "ai2d")
    data, out = tmp_path / "AI2D_TEST.tsv", tmp_path / "out"
    other = run_arguments(checkpoint, data, out, "ai2d", "--style", "raw", "--prompt", "plain")
    text = text_of(run(*other))
    assert "predictions were made with different settings" in text
    assert 'style was "chat" and is "raw"' in text
    assert 'prompt was "vlmevalkit-default@1" and is "plain@1"' in text
    assert run(*other, "--overwrite").exit_code == 0


def test_a_broken_image_is_an_error_and_counts_as_wrong(checkpoints: Any, tmp_path: Path) -> None:
    data = option_table(tmp_path)
    rows = data.read_text().splitlines(keepends=True)
    cells = rows[3].split("\t")
    rows[3] = "\t".join([*cells[:-1], "bm8gcGljdHVyZQ" * 8 + "\r\n"])
    data.write_text("".join(rows), newline="")
    done = run(*run_arguments(checkpoints("qwen2_vl"), data, tmp_path / "out", "ai2d"))
    assert done.exit_code == 0, text_of(done)
    actual = predictions(tmp_path / "out" / "qwen2_vl" / "ai2d.jsonl")
    assert "cannot be read" in actual["2"]["error"]
    assert sum("error" in item for item in actual.values()) == 1
    result = json.loads((tmp_path / "out" / "qwen2_vl" / "ai2d.json").read_text())
    assert result["metrics"]["error_rate"] == pytest.approx(100 / 11)


def test_memory_that_runs_out_halves_the_batch(
    checkpoints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from unidpo_mm.inference import local_model

    checkpoint = checkpoints("llava")
    full = responses_of(requests(checkpoint, tmp_path, "ai2d"))
    real, sizes = local_model.generate_responses, []

    def small(model: Any, adapter: Any, prompts: Any, *options: Any, **place: Any) -> Any:
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("full")
        return real(model, adapter, prompts, *options, **place)

    monkeypatch.setattr(local_model, "generate_responses", small)
    path = requests(checkpoint, tmp_path, "ai2d", "--overwrite")
    assert responses_of(path) == full
    assert sizes[:3] == [8, 4, 2]


def test_several_checkpoints_are_compared(checkpoints: Any, tmp_path: Path) -> None:
    first, second = checkpoints("llava"), checkpoints("qwen2_vl")
    out = tmp_path / "out"
    done = run(*run_arguments(first, option_table(tmp_path), out, "ai2d"), str(second))
    assert done.exit_code == 0, text_of(done)
    assert "against the first, corrected p" in done.output
    assert (out / "report.md").is_file()
    assert "better than llava" in (out / "ai2d.html").read_text()


def test_lora_adapter_and_merged_model_generate_the_same_responses(
    checkpoints: Any, tmp_path: Path
) -> None:
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
    done = run(*run_arguments(base, option_table(tmp_path), out, "ai2d"), str(lora), str(merged))
    assert done.exit_code == 0, text_of(done)
    names = ("qwen2_vl", "run-checkpoint-3", "whole")
    answers = [responses_of(out / name / "ai2d.jsonl") for name in names]
    assert answers[1] == answers[2] != answers[0]
    lines = (out / "run-checkpoint-3" / "ai2d.jsonl").read_text().splitlines()
    weights = json.loads(lines[0])["manifest"]["weights"]
    assert weights.count("+") == 1  # of the model and of the matrices


def test_the_control_uses_other_images(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("qwen2_vl")
    sample_id = predictions(requests(checkpoint, tmp_path, "ai2d"))
    out = tmp_path / "shuffled"
    done = run(
        *run_arguments(checkpoint, option_table(tmp_path), out, "ai2d", "--shuffle-images", 0)
    )
    assert done.exit_code == 0, text_of(done)
    other = predictions(out / checkpoint.name / "ai2d.jsonl")
    assert all(sample_id[n]["images"] != other[n]["images"] for n in sample_id)
    assert {item["images"] for item in sample_id.values()} == {
        item["images"] for item in other.values()
    }
    assert sample_id["1"]["prompt"] == other["1"]["prompt"]


def test_errors_are_reported_before_a_run(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint = checkpoints("llava")
    suite = (
        "run",
        checkpoint,
        "--suite",
        "quick",
        "--data",
        tmp_path,
        "--output",
        tmp_path / "out",
    )
    text = text_of(run(*suite))
    assert all(name in text for name in ("POPE", "OCRBench", "SEEDBench", "ChartQA"))
    assert "suite 'quick': 0 of its 4 benchmarks are available" in text
    assert "expected either --benchmark or --suite" in text_of(
        run("run", checkpoint, "--data", tmp_path, "--output", tmp_path)
    )
    data = option_table(tmp_path)
    twice = run_arguments(checkpoint, data, tmp_path / "out", "ai2d")
    assert "several checkpoints have the name llava" in text_of(run(*twice, str(checkpoint)))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "neither config.json nor adapter_config.json" in text_of(
        run(*run_arguments(empty, data, tmp_path / "out", "ai2d"))
    )


def test_images_are_checked_before_a_model_is_loaded(checkpoints: Any, tmp_path: Path) -> None:
    row = {"question_id": 1, "image": "nowhere.png", "text": "Is it?", "label": "yes"}
    data = tmp_path / "coco_pope_random.json"
    data.write_text(json.dumps(row) + "\n")
    line = run_arguments(
        checkpoints("llava"), data, tmp_path / "out", "pope", "--protocol", "official"
    )
    text = text_of(run(*line))
    assert "none of 1 images can be opened" in text
    assert "Use --images for the directory of the images" in text
    assert not (tmp_path / "out").exists()
    missing = run(
        *run_arguments(tmp_path / "nowhere", option_table(tmp_path), tmp_path / "out", "ai2d")
    )
    assert "checkpoint '" in text_of(missing)


def test_the_control_is_marked_where_it_is_read(checkpoints: Any, tmp_path: Path) -> None:
    checkpoint, data = checkpoints("llava"), option_table(tmp_path)
    for out, options in (("a", ()), ("b", ("--shuffle-images", 0))):
        assert (
            run(*run_arguments(checkpoint, data, tmp_path / out, "ai2d", *options)).exit_code == 0
        )
    results = [tmp_path / out / "llava" / "ai2d.json" for out in "ab"]
    output = run("compare", *results).output
    assert "llava, shuffled images against llava" in output
    assert "control: every image was replaced by another one" in run("report", results[1]).output
    assert run("report", tmp_path / "a").exit_code == 0  # a folder of results


def test_a_store_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"manifest": {"a": 1}}\nno json\n')
    with pytest.raises(DataError, match=r"x\.jsonl row 2: the line is not a recorded prediction"):
        PredictionStore(path, {"a": 1}).open()

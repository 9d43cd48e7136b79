"""Metrics of captions equal values computed by hand; the control grades those of other images."""

import json
from pathlib import Path

import pytest
from PIL import Image
from unidpo_mm_eval.benchmarks import load_benchmark
from unidpo_mm_eval.benchmarks.quickstart import named_kinds
from unidpo_mm_eval.data.predictions import read_predictions
from unidpo_mm_eval.protocols import load_protocol
from unidpo_mm_eval.results.grading import grade_predictions
from unidpo_mm_eval.results.result import Result
from unidpo_mm_quickstart import training_rows
from unidpo_mm_quickstart.evaluation import CONTROL, control_result
from unidpo_mm_quickstart.images import Canvas
from unidpo_mm_quickstart.training_rows import DemoData


def data_of(folder: Path, *contents: str) -> DemoData:
    """Write one image and row for each content, such as ``plant and heart``."""
    canvases = []
    for number, content in enumerate(contents):
        kinds = tuple(content.split(" and "))
        file = folder / "images" / f"{number}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(file)
        canvases.append(Canvas(id=str(number), file=file, kinds=kinds, concepts=kinds))
    data = DemoData(folder=folder, train=(), test=tuple(canvases))
    rows = map(training_rows.test_row, data.test)
    training_rows.write_jsonl(data.file("test_images"), rows)
    return data


def result_of(data: DemoData, *captions: str) -> Result:
    file = data.folder / "captions.jsonl"
    lines = (json.dumps({"id": str(n), "response": text}) for n, text in enumerate(captions))
    file.write_text("\n".join(lines))
    benchmark = load_benchmark("quickstart")
    rows = benchmark.read(data.file("test_images"), False)
    return grade_predictions(benchmark, rows, read_predictions(file), load_protocol("official"))


@pytest.mark.parametrize(
    ("caption", "kinds"),
    [
        ("plant and heart", ["plant", "heart"]),
        ("Plants, a FLAG.", ["plant", "flag"]),
        ("heart heart and heart", ["heart"]),
        ("a hearty meal", []),
        ("", []),
        ("a person, then a plant", ["person", "plant"]),
    ],
)
def test_kinds_are_read_from_captions(caption: str, kinds: list[str]):
    assert named_kinds(caption) == kinds


def test_metrics_equal_a_count_by_hand(tmp_path: Path):
    data = data_of(tmp_path, "plant", "heart", "flag and hand", "face and plant")
    metrics = result_of(data, "plant and heart", "heart", "hand", "heart and plant").metrics
    assert metrics["accuracy"] == 75  # the last caption names a heart first
    assert metrics["hallucination_rate"] == 50  # of two images with one object
    assert metrics["object_recall"] == pytest.approx(100 * 4 / 6)
    assert metrics["caption_words"] == (3 + 1 + 1 + 3) / 4
    assert metrics["exact"] == 25


def test_only_a_second_kind_is_a_hallucination(tmp_path: Path):
    data = data_of(tmp_path, "plant", "plant", "plant")
    captions = "heart and plant", "heart", "plant and plant"
    assert result_of(data, *captions).metrics["hallucination_rate"] == pytest.approx(100 / 3)


def test_the_control_grades_the_captions_of_other_images(tmp_path: Path):
    contents = [f"{a} and {b}" for a in ("hand", "face") for b in ("plant", "heart", "person")]
    data = data_of(tmp_path, *contents)
    right = result_of(data, *(canvas.caption for canvas in data.test))
    control = control_result(right, data, tmp_path / "eval", seed=0)
    assert (right.metrics["exact"], control.metrics["exact"]) == (100, 0)
    responses = {sample.id: sample.response for sample in control.per_sample}
    assert sorted(map(str, responses.values())) == sorted(c.caption for c in data.test)
    assert all(responses[canvas.id] != canvas.caption for canvas in data.test)
    assert control.name == CONTROL
    again = control_result(right, data, tmp_path / "again", seed=0)
    assert {sample.id: sample.response for sample in again.per_sample} == responses

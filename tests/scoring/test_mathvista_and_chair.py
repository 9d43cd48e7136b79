"""MathVista and MathVerse by rules, and hallucinated objects in captions."""

import json
from pathlib import Path

import pytest
from support.eval_commands import coco, question, run, score_rows, text_of
from unidpo_mm_eval.benchmarks.chair import mentioned

from unidpo_mm.errors import DataError

__all__ = ["coco"]  # a fixture


CASES = [
    # kind, answer, response, by VLMEvalKit's rule, by the official form
    ("option", "30", "B", 1, 1),
    ("option", "30", "(b) 30", 0, 1),  # the text of one option stands inside another
    ("option", "30", "The answer is (B).", 1, 1),
    ("option", "300", "3000", 0, 1),  # the nearest text
    ("integer", "14", " 14 ", 1, 1),
    ("integer", "14", "14.0", 0, 1),
    ("integer", "14", "fourteen", 0, 0),
    ("integer", "14", "nan", 0, 0),
    ("float", "0.6", "0.60", 1, 1),
    ("float", "0.6", "0.64", 0, 1),  # at the given precision
    ("list", "[2007, 2008]", "[2007, 2008]", 1, 1),
    ("list", "[2007, 2008]", "2007 and 2008", 0, 0),
]


@pytest.mark.parametrize(("protocol", "column"), [("vlmevalkit", 3), ("official", 4)])
def test_mathvista_is_scored_by_rules(tmp_path: Path, protocol: str, column: int) -> None:
    rows = [question(n, case[0], case[1]) for n, case in enumerate(CASES)]
    result = score_rows(tmp_path, "mathvista", rows, [case[2] for case in CASES], protocol)
    assert [item["score"] for item in result["per_sample"]] == [case[column] for case in CASES]
    metrics = result["metrics"]
    assert metrics["accuracy"] == metrics["accuracy/task/geometry"]
    assert metrics["accuracy/skill/algebra"] == metrics["accuracy/skill/geometry"]


def test_mathverse_requires_the_exact_answer(tmp_path: Path) -> None:
    versions = ("Text Lite", "Vision Only")
    rows = [
        {"index": str(n), "question": "?", "answer": "C", "problem_version": versions[n % 2],
         "problem_index": str(n // 2), "metadata": "{'subject': 'Plane', 'subfield': 'Area'}"}
        for n in range(4)
    ]  # fmt: skip
    responses = ["C", "C ", "The answer is C", "c"]
    metrics = score_rows(tmp_path, "mathverse", rows, responses, "vlmevalkit")["metrics"]
    assert metrics["accuracy"] == 50.0
    assert metrics["accuracy/problem_version/Text Lite"] == 50.0
    assert metrics["accuracy/subject/Plane"] == 50.0
    assert metrics["n_clusters"] == 2


def test_hallucinated_objects_are_counted_by_captions_and_by_mentions(coco: Path) -> None:
    responses, out = coco / "mine.jsonl", coco / "result.json"
    # image 1 shows a person and a table, image 2 a dog; there is no caption of image 3
    lines = [{"id": 1, "response": "Two women and a puppy at a desk."},
             {"id": 2, "response": "Dogs, a dog."}]  # fmt: skip
    responses.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = run("score", "-b", "chair", "--data", coco, "--predictions", responses, "--output", out)
    assert done.exit_code == 0, text_of(done)
    result = json.loads(out.read_text())
    metrics = result["metrics"]
    assert metrics["chair_s"] == 50.0  # one caption of two
    assert metrics["chair_i"] == pytest.approx(100 * 1 / 5)  # one mention of five
    assert metrics["recall"] == pytest.approx(100 * 3 / 3)
    assert (metrics["captions"], metrics["missing"]) == (2, 1)
    assert result["per_sample"][0]["note"] == "hallucinated: dog"


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A hot dog on a table", ["hot dog", "dining table"]),  # no dog
        ("Men and children", ["person", "person"]),
        ("A train track", []),
        ("The toilet seat", ["toilet"]),
        ("A passenger vehicle and planes", ["airplane"]),
        ("bow ties", ["tie"]),
        ("", []),
    ],
)
def test_objects_are_extracted_from_captions(coco: Path, caption: str, objects: list[str]) -> None:
    from unidpo_mm_eval.benchmarks.chair import _classes

    assert mentioned(caption, _classes(coco / "synonyms.txt")) == objects


def test_missing_files_of_chair_are_reported(tmp_path: Path) -> None:
    responses = tmp_path / "mine.jsonl"
    responses.write_text('{"id": 1, "response": "A dog."}\n')
    output = text_of(run("score", "-b", "chair", "--data", tmp_path, "--predictions", responses))
    assert all(name in output for name in ("instances_*.json", "captions_*.json", "synonyms.txt"))


@pytest.mark.parametrize(
    ("name", "annotation", "expected"),
    [
        ("instances_val.json", {"image_id": 1}, "lacks image_id or category_id"),
        ("instances_val.json", {"image_id": 1, "category_id": 9}, "unknown category_id 9"),
        ("captions_val.json", {"caption": "A dog."}, "lacks image_id or caption"),
        ("captions_val.json", None, "the list 'annotations' is missing"),
    ],
)
def test_incomplete_annotations_of_coco_are_reported(
    coco: Path, name: str, annotation: dict[str, int] | None, expected: str
) -> None:
    responses = coco / "mine.jsonl"
    responses.write_text('{"id": 1, "response": "A dog."}\n')
    content = json.loads((coco / name).read_text())
    content["annotations"] = None if annotation is None else [annotation]
    (coco / name).write_text(json.dumps(content))
    done = run("score", "-b", "chair", "--data", coco, "--predictions", responses)
    assert isinstance(done.exception, DataError)
    assert expected in str(done.exception)

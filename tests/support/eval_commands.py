"""Run the scoring commands on small files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from unidpo_mm_eval.command import evaluation

from unidpo_mm.errors import UniDPOError

TABLE = "index\tquestion\tA\tB\tanswer\n1\tWhich?\tcat\tdog\tA\n2\tWhich?\tcat\tdog\tB\n"


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(evaluation, list(map(str, words)), catch_exceptions=True)


def score(
    folder: Path, table: str, predictions: Any, benchmark: str = "ai2d", **options: str
) -> Any:
    data, responses = folder / "data.tsv", folder / "mine.jsonl"
    data.write_text(table, encoding="utf-8")
    if not isinstance(predictions, str):
        lines = ({"id": key, "response": text} for key, text in predictions.items())
        predictions = "".join(f"{json.dumps(line)}\n" for line in lines)
    responses.write_text(predictions, encoding="utf-8")
    words = [f"--{name}={value}" for name, value in options.items()]
    return run(
        "score", "-b", benchmark, "--data", data, "--predictions", responses,
        "--output", folder / "result.json", *words,
    )  # fmt: skip


def text_of(result: Any) -> str:
    return str(result.exception) if isinstance(result.exception, UniDPOError) else result.output


def unwrapped(result: Any) -> str:
    """Return the output on one line, without the frame that typer draws around an error."""
    return " ".join(result.output.replace("│", " ").split())


def score_rows(
    folder: Path, benchmark: str, rows: list[dict[str, str]], responses: list[str], protocol: str
) -> dict[str, Any]:
    data, file = folder / "data.tsv", folder / "mine.jsonl"
    with data.open("w", newline="", encoding="utf-8") as table:
        writer = csv.DictWriter(
            table, list(dict.fromkeys(n for r in rows for n in r)), delimiter="\t"
        )
        writer.writeheader()
        writer.writerows(rows)
    lines = (
        {"id": row["index"], "response": item} for row, item in zip(rows, responses, strict=True)
    )
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    out = folder / "result.json"
    words = ("--data", data, "--predictions", file, "--protocol", protocol, "--output", out)
    done = run("score", "-b", benchmark, *words)
    assert done.exit_code == 0, text_of(done)
    return json.loads(out.read_text())


def question(number: int, kind: str, answer: str, **options: str) -> dict[str, str]:
    fields = {"question_type": "multi_choice" if kind == "option" else "free_form"}
    fields |= {"answer_type": "text" if kind == "option" else kind, "choices": "['3', '30', '300']"}
    fields |= {"precision": "1.0", "task": "geometry", "skills": "['algebra', 'geometry']"}
    return {"index": str(number), "question": "?", "answer": answer, **fields, **options}


SYNONYMS = """person, man, woman, child, passenger
dog, puppy
hot dog
dining table, table, desk
train, locomotive
toilet
airplane, plane
tie
"""


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    (tmp_path / "synonyms.txt").write_text(SYNONYMS)
    images = [{"id": n, "file_name": f"{n}.jpg"} for n in (1, 2, 3)]
    instances = {
        "images": images,
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}],
    }
    captions = {
        "images": images,
        "annotations": [{"image_id": 1, "caption": "A man at a table."},
                        {"image_id": 3, "caption": "Nothing."}],
    }  # fmt: skip
    (tmp_path / "instances_val.json").write_text(json.dumps(instances))
    (tmp_path / "captions_val.json").write_text(json.dumps(captions))
    return tmp_path

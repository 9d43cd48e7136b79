"""Questions of benchmarks are recognized in the prompts of every protocol, and read once."""

import csv
import json
import time
from base64 import b64encode
from pathlib import Path

import pytest
from support.planted_images import encoded, photo
from support.small_benchmarks import math_lines
from unidpo_mm_eval.benchmarks import Benchmark, load_benchmark
from unidpo_mm_eval.data.images import image_folder, image_reference
from unidpo_mm_eval.protocols import load_prompts, prompt_names, render_question
from unidpo_mm_eval.run.prompts import CAPTION
from unidpo_mm_eval.run.questions import benchmark_questions, leak_index

from unidpo_mm.data.images import FileImage, MemoryImage
from unidpo_mm.data.leak_index import LeakIndex
from unidpo_mm.data.leaks import keep_out
from unidpo_mm.data.questions import Question
from unidpo_mm.errors import DataError, RecipeError


def table(path: Path, rows: int = 6, side: int = 60) -> Path:
    """Write a table of questions with options, hints and images."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("index", "question", "hint", "A", "B", "answer", "image"))
        for n in range(rows):
            image = b64encode(encoded(photo(n, (side, side)))).decode()
            row = (f"Which color is object {n}?", "Look closely." if n % 2 else "", "red", "blue")
            writer.writerow((n, *row, "AB"[n % 2], image))
    return path


def held_out(folder: Path) -> Path:
    rows = [
        {"prompt": "Who wrote it?", "chosen": "She did.", "rejected": "No."},
        {"prompt": "<image>What is it?", "images": ["a.png"], "chosen": "A cat", "rejected": "No"},
    ]
    photo(1).save(folder / "a.png")
    path = folder / "held_out.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def rendered(benchmark: Benchmark, path: Path) -> list[Question]:
    """Return the samples of a benchmark as prompts of every profile."""
    data = benchmark.read(path, True)
    kind = benchmark.response_format.kind if benchmark.response_format else CAPTION
    folder = image_folder(path)
    return [
        Question(
            where=f"{name} {sample.where}",
            text=render_question(sample, load_prompts(name).template(benchmark.name, kind)),
            images=tuple(image_reference(i, folder, sample.where) for i in sample.images),
        )
        for name in prompt_names()
        for sample in data.samples
    ]


def kept(prompts: list[Question], index: LeakIndex) -> list[str]:
    report = keep_out(prompts, index, lambda prompt: (prompt,))
    assert {leak.kind for leak in report.leaks} <= {"question"}
    return [prompts[number].where for number in report.kept]


@pytest.mark.parametrize("name", ["ai2d", "pope", "textvqa", "chartqa", "mmstar", "gsm8k"])
def test_the_prompts_of_every_protocol_are_recognized(name, tmp_path):
    benchmark = load_benchmark(name)
    if name == "gsm8k":
        path = math_lines(tmp_path)
    elif name == "pope":
        path = tmp_path / "pope.jsonl"
        questions = ({"question_id": n, "image": f"{n}.png", "text": f"Is there a {n}?",
                      "label": "no"} for n in range(4))  # fmt: skip
        path.write_text("".join(f"{json.dumps(row)}\n" for row in questions))
        for n in range(4):
            photo(n, (60, 60)).save(tmp_path / f"{n}.png")
    else:
        path = table(tmp_path / benchmark.files[0])
    prompts = rendered(benchmark, path)
    assert len(prompts) > 4 * len(prompt_names()) - 1
    assert kept(prompts, leak_index([name], data=path)) == []


def test_benchmarks_and_files_are_kept_out_together(tmp_path, monkeypatch):
    table(tmp_path / "MMStar.tsv")
    math_lines(tmp_path)
    file = held_out(tmp_path)
    index = leak_index(["mmstar", "gsm8k", str(file)], data=tmp_path)
    prompts = [
        Question(where="a", text="What is 0 + 4?"),
        Question(where="b", text="Who wrote it"),
        Question(where="c", text="What is it?", images=(FileImage(tmp_path / "a.png", "c"),)),
        Question(where="d", text="What is it?", images=(MemoryImage(encoded(photo(7)), "d"),)),
        Question(where="e", text="Which color is object 0? (A) blue (B) red"),
        Question(where="f", text="What is 10 + 4?"),
    ]
    assert kept(prompts, index) == ["d", "f"]
    monkeypatch.chdir(tmp_path)
    assert len(leak_index(["held_out.jsonl"]).questions) == 2


def test_the_second_time_takes_less_than_a_second(tmp_path, monkeypatch):
    table(tmp_path / "MMStar.tsv", rows=40, side=100)
    first = leak_index(["mmstar"], data=tmp_path)

    def refuse(path: Path, with_images: bool) -> None:
        raise AssertionError("the data are read again")

    monkeypatch.setattr("unidpo_mm_eval.run.questions.benchmark_questions", refuse)
    start = time.process_time()
    second = leak_index(["mmstar"], data=tmp_path)
    assert time.process_time() - start < 1
    assert first.questions.where == second.questions.where


def test_a_hint_may_be_in_front_of_the_question(tmp_path):
    path = table(tmp_path / "MMStar.tsv")
    texts = [item.text for item in benchmark_questions(load_benchmark("mmstar"), path)]
    assert texts[:3] == [
        "Which color is object 0?",
        "Which color is object 1?",
        "Look closely.\nWhich color is object 1?",
    ]


def test_what_cannot_be_kept_out_is_refused_with_all_problems(tmp_path):
    with pytest.raises(RecipeError, match="did you mean 'mmstar'") as error:
        leak_index(["mmstarr", "absent.jsonl"], data=tmp_path)
    assert [problem.where for problem in error.value.problems] == ["keep_out", "keep_out"]
    with pytest.raises(DataError) as data_error:
        leak_index(["mmstar", "gsm8k"], data=tmp_path)
    assert len(data_error.value.problems) == 2
    with pytest.raises(DataError, match="location of its data is not set"):
        leak_index(["mmstar"])


def test_missing_images_are_named(tmp_path, caplog):
    file = held_out(tmp_path)
    (tmp_path / "a.png").unlink()
    index = leak_index([str(file)])
    assert len(index.questions.unreadable) == 1
    assert "1 image or video cannot be compared with those of prompts" in caplog.text


def test_a_benchmark_in_a_file_of_the_user(tmp_path):
    (tmp_path / "own.py").write_text(
        "from unidpo_mm_eval.authoring import Benchmark, Scorer, Grade, table_reader\n"
        "BENCHMARK = Benchmark(name='own', title='Own', expected={}, files=('own.tsv',),\n"
        "    read=table_reader(lambda row: row.sample(answers=('a',)), 'question'),\n"
        "    scorers={'exact': Scorer(grade=lambda *_: Grade(1.0, 'a'))})\n"
    )
    (tmp_path / "own.tsv").write_text("index\tquestion\n0\tWhat is red?\n")
    index = leak_index([str(tmp_path / "own.py")], data=tmp_path)
    prompts = [Question(where="a", text="what is red"), Question(where="b", text="what is blue")]
    assert kept(prompts, index) == ["b"]

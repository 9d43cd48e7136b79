"""The commands: what they write and print, and errors of files that do not fit together."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import SETS, image_cell
from support.eval_commands import TABLE, run, score, text_of
from unidpo_mm_eval.benchmarks import benchmark_names, load_benchmark
from unidpo_mm_eval.protocols import load_protocol, protocol_names


def test_a_result_contains_metrics_scores_and_inputs(tmp_path: Path) -> None:
    replies = (
        '{"id": 2, "response": "B", "finish_reason": "length"}\n{"id": "1", "response": " "}\n'
    )
    done = score(tmp_path, TABLE, replies)
    assert done.exit_code == 0, text_of(done)
    result = json.loads((tmp_path / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["accuracy"] == 50.0
    assert [metrics[n] for n in ("n", "n_clusters", "missing")] == [2, 2, 0]
    rates = ("unparsed_rate", "truncated_rate", "empty_rate", "error_rate")
    assert [metrics[name] for name in rates] == [50.0, 50.0, 50.0, 0.0]
    assert [(item["id"], item["score"]) for item in result["per_sample"]] == [
        ("1", 0.0),
        ("2", 1.0),
    ]
    assert result["protocol"]["id"] == "vlmevalkit"
    assert len(result["data"]["sha256"]) == len(result["predictions"]["sha256"]) == 64


def test_missing_and_extra_predictions_are_reported_and_joined_by_id(
    tmp_path: Path,
) -> None:
    done = score(tmp_path, TABLE, {"9": "A", "2": "B"})
    assert "without a prediction, which count as wrong: 1" in done.output
    assert "data.tsv row 1 (id '1')" in done.output
    assert "without a sample, which are ignored: 1" in done.output
    assert "mine.jsonl row 1 (id '9')" in done.output
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["missing"], metrics["n"]) == (50.0, 1, 2)


def test_a_response_that_failed_is_wrong_and_counted(tmp_path: Path) -> None:
    replies = '{"id": "1", "error": "out of memory"}\n{"id": "2", "response": "B"}\n'
    score(tmp_path, TABLE, replies)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["error_rate"] == 50.0
    assert result["per_sample"][0]["error"] == "out of memory"


GOOD = {"1": "A", "2": "B"}
PNG = image_cell(1)


@pytest.mark.parametrize(
    ("table", "replies", "actual"),
    [
        (TABLE + "1\tAgain?\ta\tb\tA\n", GOOD, "row 3: duplicate id '1', already used by"),
        (TABLE + "3\tshort\n", GOOD, "row 3: the row has 2 cells, the header 5"),
        (TABLE + '3\t"open\ta\tb\tA\n', GOOD, "row 3: unbalanced quotes"),
        (TABLE + "3\tWhich?\ta\tb\t\n", GOOD, "row 3, column 'answer': the cell is empty"),
        (TABLE + "3\tWhich?\ta\tb\tyes\n", GOOD, "row 3, column 'answer': got 'yes'"),
        (TABLE + "3\tWhich?\ta\tb\tC\n", GOOD, "the answer is 'C' but the options are A, B"),
        (TABLE + "3\tWhich?\t\t\tA\n", GOOD, "row 3, column 'A': the question has no options"),
        (TABLE + "\tWhich?\ta\tb\tA\n", GOOD, "row 3, column 'index': the cell is empty"),
        ("index\tquestion\tanswer\n1\t?\tA\n", GOOD, "missing column A; the columns are index"),
        ("", GOOD, "missing column index"),
        (TABLE.splitlines()[0] + "\n", GOOD, "the file contains no rows"),
        ("index\tindex\tquestion\tA\tanswer\n1\t1\t?\ta\tA\n", GOOD,
         "duplicate columns index"),
        (f"index\timage\tquestion\tA\tanswer\n1\t{PNG}\t?\ta\tA\n2\t7\t?\ta\tA\n", GOOD,
         "row 2, column 'image': refers to the image of row '7', which does not exist"),
        (f"index\timage\tquestion\tA\tanswer\n1\t{PNG}\t?\ta\tA\n2\t1\t?\ta\tA\n3\t2\t?\ta\tA\n",
         GOOD, "row 3, column 'image': refers to the image of row '2', which has no image"),
        (TABLE, {"x": "A"}, "no prediction has an id of the data: got 'x', expected '1'"),
        (TABLE, '{"id": 1, "response": "A"}\n{"id": "1", "response": "B"}\n',
         "row 2, field 'id': duplicate id '1', already used by"),
        (TABLE, '{"id": 1}\n', "row 1, field 'response': missing"),
        (TABLE, '{"id": 1, "response": 5}\n', "row 1, field 'response': got int ('5')"),
        (TABLE, '{"response": "A"}\n', "row 1, field 'id': missing"),
        (TABLE, "no json\n", "row 1: the line is not valid JSON"),
        (TABLE, "[1]\n", "row 1: expected an object, got list"),
        (TABLE, "", "the file contains no predictions"),
    ],
)  # fmt: skip
def test_invalid_predictions_are_reported_with_their_row(
    tmp_path: Path, table: str, replies: Any, actual: str
) -> None:
    done = score(tmp_path, table, replies)
    assert done.exit_code != 0
    assert actual in text_of(done)
    assert not (tmp_path / "result.json").exists()


def test_all_problems_of_a_table_are_reported_together(tmp_path: Path) -> None:
    table = TABLE + "3\tshort\n4\tWhich?\ta\tb\tZ9\n1\tAgain?\ta\tb\tA\n"
    replies = text_of(score(tmp_path, table, GOOD))
    assert all(f"row {number}" in replies for number in (3, 4, 5))


def test_odd_cells_stay_as_they_are(tmp_path: Path) -> None:
    table = 'index\tquestion\tA\tB\tanswer\n007\t"tab\there\nand ""quotes"""\tNA\tnull\tB\n'
    done = score(tmp_path, table, {"007": "null"})
    result = json.loads((tmp_path / "result.json").read_text())
    (item,) = result["per_sample"]
    assert item["question"] == 'tab\there\nand "quotes"'
    assert item["options"] == {"A": "NA", "B": "null"}
    assert item["score"] == 1.0
    assert "2 options are called None, NA" in done.output


def test_rows_without_image_are_skipped_and_counted(tmp_path: Path) -> None:
    table = f"index\timage\tquestion\tA\tB\tanswer\n1\t{PNG}\t?\ta\tb\tA\n2\t\t?\ta\tb\tB\n"
    done = score(tmp_path, table, GOOD)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["metrics"]["n"], result["data"]["dropped"]) == (1, 1)
    assert "skipped 1 rows without an image" in done.output
    assert "without a sample" not in done.output  # its prediction is known, and not needed


@pytest.mark.parametrize(
    ("rows", "actual"),
    [
        ("1\t?\tYes\tcount\ta.jpg\n", "the image 'count/a.jpg' has 1 questions"),
        ("1\t?\tYes\tcount\ta.jpg\n2\t?\tNo\tcolor\ta.jpg\n", "the image 'color/a.jpg' has 1"),
        ("1\t?\tYes\tnonsense\ta.jpg\n2\t?\tNo\tnonsense\ta.jpg\n", "got 'nonsense'"),
        ("1\t?\tmaybe\tcount\ta.jpg\n2\t?\tNo\tcount\ta.jpg\n", "got 'Maybe'"),
    ],
)
def test_mme_needs_two_questions_per_image_and_an_existing_subtask(
    tmp_path: Path, rows: str, actual: str
) -> None:
    table = f"index\tquestion\tanswer\tcategory\timage_path\n{rows}"
    assert actual in text_of(score(tmp_path, table, GOOD, "mme"))


COPIES = "1000001\tWhich?\tdog\tcat\tB\n1000002\tWhich?\tdog\tcat\tA\n"


def test_a_circular_copy_without_its_question_is_reported(tmp_path: Path) -> None:
    table = TABLE + COPIES + "1000003\tWhich?\tdog\tcat\tB\n"
    replies = GOOD | {"1000001": "B", "1000002": "A", "1000003": "A"}
    done = score(tmp_path, table, replies, "mmbench")
    assert "data.tsv row 5 is a copy of row 3, which does not exist" in " ".join(
        done.output.split()
    )
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["accuracy"] == 100.0  # of the two questions
    assert metrics["vanilla_accuracy_all"] == pytest.approx(80.0)


def test_a_missing_copy_makes_its_question_wrong(tmp_path: Path) -> None:
    score(tmp_path, TABLE + COPIES, GOOD | {"1000002": "A"}, "mmbench")
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["vanilla_accuracy_base"]) == (50.0, 100.0)


def test_unknown_names_are_reported_with_the_nearest(tmp_path: Path) -> None:
    assert "did you mean 'ai2d'" in text_of(score(tmp_path, TABLE, GOOD, "ai2"))
    assert "did you mean 'lmms'" in text_of(score(tmp_path, TABLE, GOOD, protocol="lms"))
    assert "AI2D test has no scorer 'lmms'" in text_of(
        score(tmp_path, TABLE, GOOD, protocol="lmms")
    )


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_is_complete(name: str) -> None:
    actual = load_benchmark(name)
    assert actual.name == name
    assert all(number > 0 for number in actual.expected.values())
    assert {load_protocol(item).scoring for item in protocol_names()} >= set(actual.scorers)


def test_the_list_names_every_benchmark_and_protocol() -> None:
    output = run("list").output
    assert all(name in output for name in (*benchmark_names(), *protocol_names()))


# ---- comparison ----


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Return two results of an adversarial set, and its data."""
    made = SETS["ai2d"]()
    data, first = made.write(tmp_path)
    better = tmp_path / "better.jsonl"
    gold = {row["index"]: row["answer"] for row in made.rows}
    lines = [
        {"id": key, "response": gold[key] if int(key) % 3 else text}
        for key, text in made.responses.items()
    ]
    better.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    paths = []
    for replies in (first, better):
        path = tmp_path / f"{replies.stem}.json"
        run("score", "-b", "ai2d", "--data", data, "--predictions", replies, "--output", path)
        paths.append(path)
    return paths[0], paths[1], data


def test_a_comparison_reports_the_better_result_with_interval_and_p_value(
    results: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, second, data = results
    outputs = [tmp_path / name for name in ("t.md", "t.csv", "t.html")]
    done = run(
        "compare", first, second, "--data", data,
        "--markdown", outputs[0], "--csv", outputs[1], "--html", outputs[2],
    )  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    assert "better against mine" in done.output
    assert "sign-flip p = 0.0001" in done.output
    assert "| accuracy | better |" in outputs[0].read_text()
    assert "ai2d,vlmevalkit@1,accuracy,better" in outputs[1].read_text()
    page = outputs[2].read_text()
    assert page.count("<script") == 2
    assert "data:image/jpeg" in page


@pytest.mark.parametrize(
    ("change", "actual"),
    [
        ({"benchmark": "mmmu"}, "its benchmark is mmmu"),
        ({"protocol": {"id": "vlmevalkit", "title": "", "version": 2, "scoring": "vlmevalkit",
                       "options": {}}}, "its protocol is vlmevalkit@2"),
        ({"data": {"path": "x", "sha256": "0" * 64, "rows": 1, "dropped": 0}}, "its data is 000"),
    ],
)  # fmt: skip
def test_results_that_cannot_be_compared_are_refused(
    results: tuple[Path, Path, Path], change: dict[str, Any], actual: str
) -> None:
    first, second, _ = results
    content = json.loads(second.read_text())
    second.write_text(json.dumps(content | change))
    assert actual in text_of(run("compare", first, second))


def test_other_files_are_not_results(results: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"benchmark": "ai2d"}')
    assert "not a result: title: " in text_of(run("compare", results[0], other))
    assert "cannot be read" in text_of(run("compare", results[0], tmp_path / "none.json"))

"""The commands: what they write and print, and what they say of files that do not fit together."""

import json
from pathlib import Path
from typing import Any

import pytest
from nasty import SETS, picture
from scores import TABLE, run, score, told
from unidpo_mm_eval.benchmarks import benchmark_names, load_benchmark
from unidpo_mm_eval.protocols import load_protocol, protocol_names


def test_a_result_holds_metrics_scores_and_what_it_was_made_of(tmp_path: Path) -> None:
    said = '{"id": 2, "response": "B", "finish_reason": "length"}\n{"id": "1", "response": " "}\n'
    done = score(tmp_path, TABLE, said)
    assert done.exit_code == 0, told(done)
    result = json.loads((tmp_path / "result.json").read_text())
    metrics = result["metrics"]
    assert metrics["accuracy"] == 50.0
    assert [metrics[n] for n in ("n", "n_clusters", "missing")] == [2, 2, 0]
    rates = ("unparsed_rate", "truncated_rate", "empty_rate", "error_rate")
    assert [metrics[name] for name in rates] == [50.0, 50.0, 50.0, 0.0]
    assert [(one["id"], one["score"]) for one in result["per_sample"]] == [("1", 0.0), ("2", 1.0)]
    assert result["protocol"]["id"] == "vlmevalkit"
    assert len(result["data"]["sha256"]) == len(result["predictions"]["sha256"]) == 64


def test_missing_and_extra_predictions_are_told_and_nothing_goes_by_position(
    tmp_path: Path,
) -> None:
    done = score(tmp_path, TABLE, {"9": "A", "2": "B"})
    assert "without prediction, which count as wrong: 1" in done.output
    assert "data.tsv row 1 (id '1')" in done.output
    assert "without sample, which are not scored: 1" in done.output
    assert "said.jsonl row 1 (id '9')" in done.output
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["missing"], metrics["n"]) == (50.0, 1, 2)


def test_a_response_that_failed_is_wrong_and_counted(tmp_path: Path) -> None:
    said = '{"id": "1", "error": "out of memory"}\n{"id": "2", "response": "B"}\n'
    score(tmp_path, TABLE, said)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["error_rate"] == 50.0
    assert result["per_sample"][0]["error"] == "out of memory"


GOOD = {"1": "A", "2": "B"}
PNG = picture(1)


@pytest.mark.parametrize(
    ("table", "said", "found"),
    [
        (TABLE + "1\tAgain?\ta\tb\tA\n", GOOD, "row 3: the id '1' is taken by"),
        (TABLE + "3\tshort\n", GOOD, "row 3: it has 2 cells and the header 5"),
        (TABLE + '3\t"open\ta\tb\tA\n', GOOD, "row 3: the quotes do not match"),
        (TABLE + "3\tWhich?\ta\tb\t\n", GOOD, "row 3, column 'answer': the cell is empty"),
        (TABLE + "3\tWhich?\ta\tb\tyes\n", GOOD, "row 3, column 'answer': found 'yes'"),
        (TABLE + "3\tWhich?\ta\tb\tC\n", GOOD, "the answer is 'C' and the options are A, B"),
        (TABLE + "3\tWhich?\t\t\tA\n", GOOD, "row 3, column 'A': the question has no option"),
        (TABLE + "\tWhich?\ta\tb\tA\n", GOOD, "row 3, column 'index': the cell is empty"),
        ("index\tquestion\tanswer\n1\t?\tA\n", GOOD, "there is no column A among index"),
        ("", GOOD, "there is no column index"),
        (TABLE.splitlines()[0] + "\n", GOOD, "there is no row to score"),
        ("index\tindex\tquestion\tA\tanswer\n1\t1\t?\ta\tA\n", GOOD,
         "the columns index are there twice"),
        (f"index\timage\tquestion\tA\tanswer\n1\t{PNG}\t?\ta\tA\n2\t7\t?\ta\tA\n", GOOD,
         "row 2, column 'image': it refers to the picture of row '7', which is not there"),
        (f"index\timage\tquestion\tA\tanswer\n1\t{PNG}\t?\ta\tA\n2\t1\t?\ta\tA\n3\t2\t?\ta\tA\n",
         GOOD, "row 3, column 'image': it refers to the picture of row '2', which has no picture"),
        (TABLE, {"x": "A"}, "no prediction has an id of the data: 'x' here, '1' there"),
        (TABLE, '{"id": 1, "response": "A"}\n{"id": "1", "response": "B"}\n',
         "row 2, field 'id': the id '1' is taken by"),
        (TABLE, '{"id": 1}\n', "row 1, field 'response': found nothing"),
        (TABLE, '{"id": 1, "response": 5}\n', "row 1, field 'response': found int ('5')"),
        (TABLE, '{"response": "A"}\n', "row 1, field 'id': found nothing"),
        (TABLE, "no json\n", "row 1: the line is no JSON"),
        (TABLE, "[1]\n", "row 1: the row is list"),
        (TABLE, "", "the file holds no prediction"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_row(
    tmp_path: Path, table: str, said: Any, found: str
) -> None:
    done = score(tmp_path, table, said)
    assert done.exit_code != 0
    assert found in told(done)
    assert not (tmp_path / "result.json").exists()


def test_all_problems_of_a_table_are_told_at_once(tmp_path: Path) -> None:
    table = TABLE + "3\tshort\n4\tWhich?\ta\tb\tZ9\n1\tAgain?\ta\tb\tA\n"
    said = told(score(tmp_path, table, GOOD))
    assert all(f"row {number}" in said for number in (3, 4, 5))


def test_odd_cells_stay_as_they_are(tmp_path: Path) -> None:
    table = 'index\tquestion\tA\tB\tanswer\n007\t"tab\there\nand ""quotes"""\tNA\tnull\tB\n'
    done = score(tmp_path, table, {"007": "null"})
    result = json.loads((tmp_path / "result.json").read_text())
    (one,) = result["per_sample"]
    assert one["question"] == 'tab\there\nand "quotes"'
    assert one["options"] == {"A": "NA", "B": "null"}
    assert one["score"] == 1.0
    assert "2 options read None, NA" in done.output


def test_rows_without_picture_are_left_out_and_counted(tmp_path: Path) -> None:
    table = f"index\timage\tquestion\tA\tB\tanswer\n1\t{PNG}\t?\ta\tb\tA\n2\t\t?\ta\tb\tB\n"
    done = score(tmp_path, table, GOOD)
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["metrics"]["n"], result["data"]["dropped"]) == (1, 1)
    assert "1 rows without picture are left out" in done.output
    assert "without sample" not in done.output  # its prediction is known, and not needed


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ("1\t?\tYes\tcount\ta.jpg\n", "the picture 'count/a.jpg' has 1 questions"),
        ("1\t?\tYes\tcount\ta.jpg\n2\t?\tNo\tcolor\ta.jpg\n", "the picture 'color/a.jpg' has 1"),
        ("1\t?\tYes\tnonsense\ta.jpg\n2\t?\tNo\tnonsense\ta.jpg\n", "found 'nonsense'"),
        ("1\t?\tmaybe\tcount\ta.jpg\n2\t?\tNo\tcount\ta.jpg\n", "found 'Maybe'"),
    ],
)
def test_mme_needs_two_questions_a_picture_of_a_known_subtask(
    tmp_path: Path, rows: str, found: str
) -> None:
    table = f"index\tquestion\tanswer\tcategory\timage_path\n{rows}"
    assert found in told(score(tmp_path, table, GOOD, "mme"))


COPIES = "1000001\tWhich?\tdog\tcat\tB\n1000002\tWhich?\tdog\tcat\tA\n"


def test_a_circular_copy_without_its_question_is_told(tmp_path: Path) -> None:
    table = TABLE + COPIES + "1000003\tWhich?\tdog\tcat\tB\n"
    said = GOOD | {"1000001": "B", "1000002": "A", "1000003": "A"}
    done = score(tmp_path, table, said, "mmbench")
    assert "data.tsv row 5 is a copy of row 3, which is not there" in " ".join(done.output.split())
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert metrics["accuracy"] == 100.0  # of the two questions
    assert metrics["vanilla_accuracy_all"] == pytest.approx(80.0)


def test_a_missing_copy_makes_its_question_wrong(tmp_path: Path) -> None:
    score(tmp_path, TABLE + COPIES, GOOD | {"1000002": "A"}, "mmbench")
    metrics = json.loads((tmp_path / "result.json").read_text())["metrics"]
    assert (metrics["accuracy"], metrics["vanilla_accuracy_base"]) == (50.0, 100.0)


def test_names_that_do_not_exist_are_told_with_the_nearest(tmp_path: Path) -> None:
    assert "did you mean 'ai2d'" in told(score(tmp_path, TABLE, GOOD, "ai2"))
    assert "did you mean 'lmms'" in told(score(tmp_path, TABLE, GOOD, protocol="lms"))
    assert "AI2D test has no rules of the family 'lmms'" in told(
        score(tmp_path, TABLE, GOOD, protocol="lmms")
    )


@pytest.mark.parametrize("name", benchmark_names())
def test_every_benchmark_is_whole(name: str) -> None:
    found = load_benchmark(name)
    assert found.name == name
    assert all(number > 0 for number in found.expected.values())
    assert {load_protocol(one).scoring for one in protocol_names()} >= set(found.families)


def test_the_list_names_every_benchmark_and_protocol() -> None:
    output = run("list").output
    assert all(name in output for name in (*benchmark_names(), *protocol_names()))


# ---- comparison ----


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Returns two results of one nasty set, and its data."""
    made = SETS["ai2d"]()
    data, first = made.write(tmp_path)
    better = tmp_path / "better.jsonl"
    gold = {row["index"]: row["answer"] for row in made.rows}
    lines = [
        {"id": own, "response": gold[own] if int(own) % 3 else text}
        for own, text in made.responses.items()
    ]
    better.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    paths = []
    for said in (first, better):
        path = tmp_path / f"{said.stem}.json"
        run("score", "-b", "ai2d", "--data", data, "--predictions", said, "--output", path)
        paths.append(path)
    return paths[0], paths[1], data


def test_a_comparison_says_who_is_better_and_how_surely(
    results: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    first, second, data = results
    outputs = [tmp_path / name for name in ("t.md", "t.csv", "t.html")]
    done = run(
        "compare", first, second, "--data", data,
        "--markdown", outputs[0], "--csv", outputs[1], "--html", outputs[2],
    )  # fmt: skip
    assert done.exit_code == 0, told(done)
    assert "better against said" in done.output
    assert "sign-flip p = 0.0001" in done.output
    assert "| accuracy | better |" in outputs[0].read_text()
    assert "ai2d,vlmevalkit@1,accuracy,better" in outputs[1].read_text()
    page = outputs[2].read_text()
    assert page.count("<script") == 2
    assert "data:image/jpeg" in page


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"benchmark": "mmmu"}, "its benchmark is mmmu"),
        ({"protocol": {"id": "vlmevalkit", "title": "", "version": 2, "scoring": "vlmevalkit",
                       "options": {}}}, "its protocol is vlmevalkit@2"),
        ({"data": {"path": "x", "sha256": "0" * 64, "rows": 1, "dropped": 0}}, "its data is 000"),
    ],
)  # fmt: skip
def test_results_that_cannot_be_compared_are_refused(
    results: tuple[Path, Path, Path], change: dict[str, Any], found: str
) -> None:
    first, second, _ = results
    content = json.loads(second.read_text())
    second.write_text(json.dumps(content | change))
    assert found in told(run("compare", first, second))


def test_what_is_no_result_is_told(results: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"benchmark": "ai2d"}')
    assert "it is no result: title: " in told(run("compare", results[0], other))
    assert "cannot be read" in told(run("compare", results[0], tmp_path / "none.json"))

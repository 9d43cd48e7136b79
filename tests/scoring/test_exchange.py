"""Files of other tools: what is written, what is read back, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from nasty import SETS
from scores import run, told
from unidpo_mm_eval.bridges import bridge_names, load_bridge
from unidpo_mm_eval.reading.predictions import read_predictions
from unidpo_mm_eval.reading.tables import read_table


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Returns a table of circular questions and predictions."""
    return SETS["mmbench"]().write(tmp_path)


def export(tool: str, files: tuple[Path, Path], out: Path, *more: str) -> Any:
    return run("export", tool, "--data", files[0], "--predictions", files[1], "--out", out, *more)


@pytest.mark.parametrize("ending", [".xlsx", ".tsv", ".json"])
def test_a_table_goes_to_vlmevalkit_and_back(
    files: tuple[Path, Path], tmp_path: Path, ending: str
) -> None:
    out, back = tmp_path / f"model_MMBench{ending}", tmp_path / "back.jsonl"
    done = export("vlmevalkit", files, out)
    assert done.exit_code == 0, told(done)
    assert "image" not in read_table(out)[0]
    done = run("import", "vlmevalkit", out, "--out", back, "--model", "mine")
    assert done.exit_code == 0, told(done)
    before, after = read_predictions(files[1]), read_predictions(back)
    said = {own: one.response for own, one in before.by_id.items()}
    assert {own: one.response for own, one in after.by_id.items()} == said
    assert after.manifest == {"model": "mine", "backend": "VLMEvalKit", "protocol": "foreign"}


def test_a_table_scores_the_same_after_the_journey(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, back = tmp_path / "m.tsv", tmp_path / "back.jsonl"
    export("vlmevalkit", files, out)
    run("import", "vlmevalkit", out, "--out", back)
    results = []
    for said in (files[1], back):
        result = tmp_path / f"{said.stem}.json"
        words = ("-b", "mmbench", "--data", files[0], "--predictions", said)
        run("score", *words, "--output", result)
        results.append(json.loads(result.read_text())["metrics"])
    assert results[0] == results[1]


def test_a_submission_holds_every_row_and_no_score(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "submission.xlsx"
    done = export("mmbench_submission", files, out)
    assert done.exit_code == 0, told(done)
    rows = read_table(out)
    lines = files[1].read_text().splitlines()
    assert len(rows) == len(lines)
    assert list(rows[0]) == ["index", "question", "A", "B", "C", "D", "prediction", "split",
                             "category", "l2-category"]  # fmt: skip
    files[1].write_text("\n".join(lines[1:]) + "\n")
    assert "1 rows have no prediction" in told(export("mmbench_submission", files, out))
    scores = tmp_path / "scores.tsv"
    scores.write_text("index\tquestion\thit\n1\t?\t1\n")
    said = tmp_path / "one.jsonl"
    said.write_text('{"id": 1, "response": "A"}\n')
    assert "the columns hit of a table of scores" in told(
        export("mmbench_submission", (scores, said), out)
    )
    assert "MMBench's server reads .xlsx" in export("mmbench_submission", files, scores).output


@pytest.mark.parametrize("tool", ["lmms_eval", "lm_eval"])
def test_logged_samples_are_read(tool: str, tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "said.jsonl"
    rows = [
        {"doc_id": 0, "target": "A", "resps": [["raw"]], "filtered_resps": ["B"]},
        {"doc_id": 0, "target": "A", "resps": [["raw"]], "filtered_resps": ["again"]},
        {"doc_id": 1, "target": "B", "filtered_resps": ["C"]},
        {"doc_id": 2, "doc": {"question_id": "q7"}, "resps": [["D"]]},
    ]
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run("import", tool, samples, "--out", out).exit_code == 0
    said = read_predictions(out).by_id
    assert {own: one.response for own, one in said.items()} == {
        "0": "raw", "1": "C", "q7": "D",  # once for all filters, under the document's own id
    }  # fmt: skip
    samples.write_text('{"doc_id": 0}\n{"filtered_resps": ["B"]}\n')
    problems = told(run("import", tool, samples, "--out", out))
    assert "row 1, field 'resps': there is no response" in problems
    assert "row 2, field 'doc_id': it is not there" in problems


def test_answers_are_written_for_the_arenas(tmp_path: Path) -> None:
    data, said = tmp_path / "questions.jsonl", tmp_path / "mine.jsonl"
    rows = [{"question_id": f"q{n}", "instruction": f"Do {n}", "dataset": "x"} for n in range(2)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    said.write_text('{"id": "q1", "response": "two words"}\n{"id": "q0", "response": "one"}\n')
    alpaca, arena = tmp_path / "out.json", tmp_path / "out.jsonl"
    assert export("alpaca_eval", (data, said), alpaca, "--model", "M").exit_code == 0
    assert json.loads(alpaca.read_text())[1] == {
        "dataset": "x", "instruction": "Do 1", "output": "two words", "generator": "M",
    }  # fmt: skip
    assert export("arena_hard", (data, said), arena).exit_code == 0
    first = json.loads(arena.read_text().splitlines()[0])
    assert (first["question_id"], first["model_id"]) == ("q0", "mine")
    assert first["choices"][0]["turns"] == [{"content": "one", "token_len": 1}]
    said.write_text('{"id": "q1", "response": "two words"}\n')
    for tool, out in (("alpaca_eval", alpaca), ("arena_hard", arena)):
        assert "no prediction" in told(export(tool, (data, said), out))


def test_what_cannot_be_done_is_told(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "did you mean 'vlmevalkit'" in told(export("vlmevalkt", files, tmp_path / "a.tsv"))
    assert "nothing is written for lm-eval" in export("lm_eval", files, tmp_path / "a").output
    assert (
        "nothing is read of AlpacaEval"
        in run("import", "alpaca_eval", files[0], "--out", tmp_path / "a").output
    )
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    said = told(run("import", "vlmevalkit", broken, "--out", tmp_path / "a"))
    assert "the table cannot be read" in said


@pytest.mark.parametrize("name", bridge_names())
def test_every_bridge_does_something(name: str) -> None:
    bridge = load_bridge(name)
    assert bridge.name == name
    assert bridge.export or bridge.read
    assert bool(bridge.export) == bool(bridge.endings)


def test_a_cell_of_xlsx_is_never_a_formula_and_never_cut(tmp_path: Path) -> None:
    import openpyxl

    table, said, out = tmp_path / "d.tsv", tmp_path / "s.jsonl", tmp_path / "o.xlsx"
    table.write_text("index\tquestion\tanswer\n7\t?\tA\n")
    said.write_text('{"id": 7, "response": "=1+1"}\n')
    assert export("vlmevalkit", (table, said), out).exit_code == 0
    sheet = openpyxl.load_workbook(out, data_only=True).active
    assert [cell.value for cell in sheet[2]] == [7, "?", "A", "=1+1"]
    said.write_text(json.dumps({"id": 7, "response": "x" * 40_000}) + "\n")
    assert "a cell holds 32,767" in told(export("vlmevalkit", (table, said), out))
    said.write_text('{"id": 8, "response": "A"}\n')
    assert "no prediction has an id of the data" in told(export("vlmevalkit", (table, said), out))
    table.write_text("index\tquestion\n7\t?\textra\n")
    assert "row 1 has more or fewer cells" in told(export("vlmevalkit", (table, said), out))
    broken = tmp_path / "broken.xlsx"
    broken.write_text("no table")
    assert "cannot be read" in told(run("import", "vlmevalkit", broken, "--out", tmp_path / "a"))

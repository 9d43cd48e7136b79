"""Files of other tools: what is written, what is read back, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from nasty import SETS
from scores import run, told
from unidpo_mm_eval.bridges import bridge_names, load_bridge
from unidpo_mm_eval.bridges._tables import read_table
from unidpo_mm_eval.data.predictions import read_predictions


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


def logged(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_numbers_of_rows_become_ids_where_the_same_question_was_asked(tmp_path: Path) -> None:
    data = tmp_path / "d.tsv"
    data.write_text("index\tquestion\tanswer\nq5\tIs it red?\tYes\nq9\tIs it blue?\tNo\n")
    samples, out = tmp_path / "samples.jsonl", tmp_path / "said.jsonl"
    words = ("import", "lmms_eval", samples, "--out", out)
    second = {"doc_id": 1, "target": "No", "resps": [["No"]], "input": "Is it blue?\nOne word."}
    logged(samples, second, {"doc_id": 0, "target": "yes", "resps": [["Yes"]]})
    assert "ids are numbers of rows" in run(*words).output
    more = ("--data", data, "--tool-version", "0.7.3", "--protocol", "lmms")
    done = run(*words, *more)
    assert done.exit_code == 0, told(done)
    found = read_predictions(out)
    assert {own: one.response for own, one in found.by_id.items()} == {"q9": "No", "q5": "Yes"}
    assert found.manifest["backend"] == "lmms-eval 0.7.3"
    assert found.manifest["protocol"] == "lmms"
    logged(samples, second | {"doc_id": 0}, {"doc_id": 7, "resps": [["?"]]})
    problems = told(run(*words, "--data", data))
    assert "row 1: it answers another question than row number 0 of the data asks" in problems
    assert "row 2: the data have no row number 7, they have 2" in problems


def test_imported_ids_have_to_be_those_of_the_data(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, back = tmp_path / "m.tsv", tmp_path / "back.jsonl"
    export("vlmevalkit", files, out)
    assert run("import", "vlmevalkit", out, "--out", back, "--data", files[0]).exit_code == 0
    other = tmp_path / "other.tsv"
    other.write_text("index\tquestion\tanswer\nnot\t?\tA\n")
    said = told(run("import", "vlmevalkit", out, "--out", back, "--data", other))
    assert "the data have no row" in said


def test_lmms_eval_replays_what_is_written(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Reads the log as its `from_log` model does: by task and number of the document."""
    out = tmp_path / "log.json"
    assert "--task: lmms-eval looks responses up by task" in told(export("lmms_eval", files, out))
    done = export("lmms_eval", files, out, "--task", "mmbench_en_dev")
    assert done.exit_code == 0, told(done)
    log = json.loads(out.read_text())
    assert (log["model_configs"]["task"], log["args"]["limit"]) == ("mmbench_en_dev", None)
    replayed = {one["doc_id"]: one["resps"][0][0] for one in log["logs"]}
    rows, said = read_table(files[0]), read_predictions(files[1]).by_id
    assert replayed == {n: said[row["index"]].response for n, row in enumerate(rows)}
    files[1].write_text('{"id": "0", "response": "A"}\n')
    assert "rows have no prediction" in told(export("lmms_eval", files, out, "--task", "x"))


def test_data_go_to_vlmevalkit_under_a_name_of_ones_own(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "Mine.tsv"
    done = run("export", "vlmevalkit_data", "--data", files[0], "--out", out)
    assert "which it scores" in done.output
    assert read_table(out) == read_table(files[0])
    files[1].write_text('{"id": "0", "response": "A"}\n')
    assert export("vlmevalkit_data", files, out).exit_code == 0
    assert [row["index"] for row in read_table(out)] == ["0"]
    own = run("export", "vlmevalkit_data", "--data", files[0], "--out", tmp_path / "POPE.tsv")
    assert "a name of its own" in told(own)
    bare = run("export", "vlmevalkit", "--data", files[0], "--out", out)
    assert "VLMEvalKit reads predictions" in bare.output


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
    thoughts = "<think>one or two?</think>one"
    lines = [{"id": "q0", "response": thoughts}, {"id": "q1", "response": "<think>one"}]
    said.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = export("arena_hard", (data, said), arena)
    assert "reasoning is removed from 2 responses, of which 1 end inside it" in done.output
    turns = [json.loads(line)["choices"][0]["turns"][0] for line in arena.read_text().splitlines()]
    assert [turn["content"] for turn in turns] == ["one", ""]
    assert turns[0]["token_len"] == 1
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

"""Files of other tools: export, import, and errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import SETS
from support.eval_commands import run, text_of
from unidpo_mm_eval.bridges import bridge_names, load_bridge
from unidpo_mm_eval.bridges._files import read_table
from unidpo_mm_eval.data.predictions import read_predictions


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return a table of circular questions, and predictions."""
    return SETS["mmbench"]().write(tmp_path)


def export(tool: str, files: tuple[Path, Path], out: Path, *options: str) -> Any:
    return run(
        "export", tool, "--data", files[0], "--predictions", files[1], "--output", out, *options
    )


@pytest.mark.parametrize("ending", [".xlsx", ".tsv", ".json"])
def test_a_table_goes_to_vlmevalkit_and_back(
    files: tuple[Path, Path], tmp_path: Path, ending: str
) -> None:
    out, back = tmp_path / f"model_MMBench{ending}", tmp_path / "back.jsonl"
    done = export("vlmevalkit", files, out)
    assert done.exit_code == 0, text_of(done)
    assert "image" not in read_table(out)[0]
    done = run("import", "vlmevalkit", out, "--output", back, "--name", "mine")
    assert done.exit_code == 0, text_of(done)
    before, after = read_predictions(files[1]), read_predictions(back)
    responses = {key: item.response for key, item in before.by_id.items()}
    assert {key: item.response for key, item in after.by_id.items()} == responses
    assert after.manifest == {"model": "mine", "backend": "VLMEvalKit", "protocol": "foreign"}


def test_a_table_has_the_same_scores_after_export_and_import(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, back = tmp_path / "m.tsv", tmp_path / "back.jsonl"
    export("vlmevalkit", files, out)
    run("import", "vlmevalkit", out, "--output", back)
    results = []
    for responses in (files[1], back):
        result = tmp_path / f"{responses.stem}.json"
        words = ("-b", "mmbench", "--data", files[0], "--predictions", responses)
        run("score", *words, "--output", result)
        results.append(json.loads(result.read_text())["metrics"])
    assert results[0] == results[1]


def test_a_submission_holds_every_row_and_no_score(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "submission.xlsx"
    done = export("mmbench_submission", files, out)
    assert done.exit_code == 0, text_of(done)
    rows = read_table(out)
    lines = files[1].read_text().splitlines()
    assert len(rows) == len(lines)
    assert list(rows[0]) == ["index", "question", "A", "B", "C", "D", "prediction", "split",
                             "category", "l2-category"]  # fmt: skip
    files[1].write_text("\n".join(lines[1:]) + "\n")
    assert "1 rows have no prediction" in text_of(export("mmbench_submission", files, out))
    scores = tmp_path / "scores.tsv"
    scores.write_text("index\tquestion\thit\n1\t?\t1\n")
    responses = tmp_path / "one.jsonl"
    responses.write_text('{"id": 1, "response": "A"}\n')
    assert "the data contain columns of a results table: hit" in text_of(
        export("mmbench_submission", (scores, responses), out)
    )
    assert "MMBench's server reads .xlsx" in export("mmbench_submission", files, scores).output


@pytest.mark.parametrize("tool", ["lmms_eval", "lm_eval"])
def test_logged_samples_are_read(tool: str, tmp_path: Path) -> None:
    samples, out = tmp_path / "samples.jsonl", tmp_path / "mine.jsonl"
    rows = [
        {"doc_id": 0, "target": "A", "resps": [["raw"]], "filtered_resps": ["B"]},
        {"doc_id": 0, "target": "A", "resps": [["raw"]], "filtered_resps": ["again"]},
        {"doc_id": 1, "target": "B", "filtered_resps": ["C"]},
        {"doc_id": 2, "doc": {"question_id": "q7"}, "resps": [["D"]]},
    ]
    samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert run("import", tool, samples, "--output", out).exit_code == 0
    responses = read_predictions(out).by_id
    assert {key: item.response for key, item in responses.items()} == {
        "0": "raw", "1": "C", "q7": "D",  # once for all filters, under the document's own id
    }  # fmt: skip
    samples.write_text('{"doc_id": 0}\n{"filtered_resps": ["B"]}\n')
    problems = text_of(run("import", tool, samples, "--output", out))
    assert "row 1, field 'resps': there is no response" in problems
    assert "row 2, field 'doc_id': missing" in problems


def logged(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_row_numbers_become_ids_if_questions_are_equal(tmp_path: Path) -> None:
    data = tmp_path / "d.tsv"
    data.write_text("index\tquestion\tanswer\nq5\tIs it red?\tYes\nq9\tIs it blue?\tNo\n")
    samples, out = tmp_path / "samples.jsonl", tmp_path / "mine.jsonl"
    words = ("import", "lmms_eval", samples, "--output", out)
    second = {"doc_id": 1, "target": "No", "resps": [["No"]], "input": "Is it blue?\nOne word."}
    logged(samples, second, {"doc_id": 0, "target": "yes", "resps": [["Yes"]]})
    assert "the ids are row numbers" in run(*words).output
    options = ("--data", data, "--tool-version", "0.7.3", "--protocol", "lmms")
    done = run(*words, *options)
    assert done.exit_code == 0, text_of(done)
    actual = read_predictions(out)
    assert {key: item.response for key, item in actual.by_id.items()} == {"q9": "No", "q5": "Yes"}
    assert actual.manifest["backend"] == "lmms-eval 0.7.3"
    assert actual.manifest["protocol"] == "lmms"
    logged(samples, second | {"doc_id": 0}, {"doc_id": 7, "resps": [["?"]]})
    problems = text_of(run(*words, "--data", data))
    assert "row 1: the question differs from that of row number 0 of the data" in problems
    assert "row 2: row number 7, but the data contain 2 rows" in problems


def test_imported_ids_have_to_be_those_of_the_data(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, back = tmp_path / "m.tsv", tmp_path / "back.jsonl"
    export("vlmevalkit", files, out)
    assert run("import", "vlmevalkit", out, "--output", back, "--data", files[0]).exit_code == 0
    other = tmp_path / "other.tsv"
    other.write_text("index\tquestion\tanswer\nnot\t?\tA\n")
    responses = text_of(run("import", "vlmevalkit", out, "--output", back, "--data", other))
    assert "the data contain no row" in responses


def test_lmms_eval_replays_exported_files(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Read the log like its `from_log` model: by task and number of the document."""
    out = tmp_path / "log.json"
    assert "--task: lmms-eval looks responses up by task" in text_of(
        export("lmms_eval", files, out)
    )
    done = export("lmms_eval", files, out, "--task", "mmbench_en_dev")
    assert done.exit_code == 0, text_of(done)
    log = json.loads(out.read_text())
    assert (log["model_configs"]["task"], log["args"]["limit"]) == ("mmbench_en_dev", None)
    replayed = {item["doc_id"]: item["resps"][0][0] for item in log["logs"]}
    rows, responses = read_table(files[0]), read_predictions(files[1]).by_id
    assert replayed == {n: responses[row["index"]].response for n, row in enumerate(rows)}
    files[1].write_text('{"id": "0", "response": "A"}\n')
    assert "rows have no prediction" in text_of(export("lmms_eval", files, out, "--task", "x"))


def test_data_are_exported_to_vlmevalkit_under_a_new_name(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "Mine.tsv"
    done = run("export", "vlmevalkit_data", "--data", files[0], "--output", out)
    assert "which it scores" in done.output
    assert read_table(out) == read_table(files[0])
    files[1].write_text('{"id": "0", "response": "A"}\n')
    assert export("vlmevalkit_data", files, out).exit_code == 0
    assert [row["index"] for row in read_table(out)] == ["0"]
    key = run("export", "vlmevalkit_data", "--data", files[0], "--output", tmp_path / "POPE.tsv")
    assert "would download its own" in text_of(key)
    bare = run("export", "vlmevalkit", "--data", files[0], "--output", out)
    assert "VLMEvalKit reads predictions" in bare.output


def test_responses_are_exported_for_arenas(tmp_path: Path) -> None:
    data, responses = tmp_path / "questions.jsonl", tmp_path / "mine.jsonl"
    rows = [{"question_id": f"q{n}", "instruction": f"Do {n}", "dataset": "x"} for n in range(2)]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    responses.write_text('{"id": "q1", "response": "two words"}\n{"id": "q0", "response": "one"}\n')
    alpaca, arena = tmp_path / "out.json", tmp_path / "out.jsonl"
    assert export("alpaca_eval", (data, responses), alpaca, "--name", "M").exit_code == 0
    assert json.loads(alpaca.read_text())[1] == {
        "dataset": "x", "instruction": "Do 1", "output": "two words", "generator": "M",
    }  # fmt: skip
    assert export("arena_hard", (data, responses), arena).exit_code == 0
    first = json.loads(arena.read_text().splitlines()[0])
    assert (first["question_id"], first["model_id"]) == ("q0", "mine")
    assert first["choices"][0]["turns"] == [{"content": "one", "token_len": 1}]
    thoughts = "<think>one or two?</think>one"
    lines = [{"id": "q0", "response": thoughts}, {"id": "q1", "response": "<think>one"}]
    responses.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = export("arena_hard", (data, responses), arena)
    assert "removed reasoning from 2 responses, of which 1 end inside it" in done.output
    turns = [json.loads(line)["choices"][0]["turns"][0] for line in arena.read_text().splitlines()]
    assert [turn["content"] for turn in turns] == ["one", ""]
    assert turns[0]["token_len"] == 1
    responses.write_text('{"id": "q1", "response": "two words"}\n')
    for tool, out in (("alpaca_eval", alpaca), ("arena_hard", arena)):
        assert "no prediction" in text_of(export(tool, (data, responses), out))


def test_impossible_exchanges_are_reported(files: tuple[Path, Path], tmp_path: Path) -> None:
    assert "did you mean 'vlmevalkit'" in text_of(export("vlmevalkt", files, tmp_path / "a.tsv"))
    assert "no export to lm-eval" in export("lm_eval", files, tmp_path / "a").output
    assert (
        "no import from AlpacaEval"
        in run("import", "alpaca_eval", files[0], "--output", tmp_path / "a").output
    )
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    responses = text_of(run("import", "vlmevalkit", broken, "--output", tmp_path / "a"))
    assert "cannot read the table" in responses


@pytest.mark.parametrize("name", bridge_names())
def test_every_bridge_does_something(name: str) -> None:
    bridge = load_bridge(name)
    assert bridge.name == name
    assert bridge.export or bridge.read
    assert bool(bridge.export) == bool(bridge.endings)


def test_a_cell_of_xlsx_is_never_a_formula_and_never_cut(tmp_path: Path) -> None:
    import openpyxl

    table, responses, out = tmp_path / "d.tsv", tmp_path / "s.jsonl", tmp_path / "o.xlsx"
    table.write_text("index\tquestion\tanswer\n7\t?\tA\n")
    responses.write_text('{"id": 7, "response": "=1+1"}\n')
    assert export("vlmevalkit", (table, responses), out).exit_code == 0
    sheet = openpyxl.load_workbook(out, data_only=True).active
    assert [cell.value for cell in sheet[2]] == [7, "?", "A", "=1+1"]
    responses.write_text(json.dumps({"id": 7, "response": "x" * 40_000}) + "\n")
    assert "a cell holds at most 32,767" in text_of(export("vlmevalkit", (table, responses), out))
    responses.write_text('{"id": 8, "response": "A"}\n')
    assert "no prediction has an id of the data" in text_of(
        export("vlmevalkit", (table, responses), out)
    )
    table.write_text("index\tquestion\n7\t?\textra\n")
    assert "row 1 has more or fewer cells" in text_of(export("vlmevalkit", (table, responses), out))
    broken = tmp_path / "broken.xlsx"
    broken.write_text("no table")
    assert "cannot read the table" in text_of(
        run("import", "vlmevalkit", broken, "--output", tmp_path / "a")
    )

"""Results of a model share a row, and meaningless numbers give warnings."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.adversarial_responses import image_cell
from support.eval_commands import TABLE, run, score, text_of
from unidpo_mm_eval.results.result import read_result


def pope(folder: Path, replies: Path, responses: Any, protocol: str) -> Any:
    data, out = folder / "POPE.tsv", replies.with_suffix(".json")
    rows = [
        f"{n}\tIs there a cat?\t{('Yes', 'No')[n % 2]}\trandom\t{image_cell(n)}"
        for n in range(len(responses))
    ]
    data.write_text("\n".join(["index\tquestion\tanswer\tcategory\timage", *rows]) + "\n")
    replies.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": str(n), "response": item}) for n, item in enumerate(responses)]
    replies.write_text("\n".join(lines) + "\n")
    done = run("score", "-b", "pope", "--data", data, "--predictions", replies, "--output", out,
               "--protocol", protocol)  # fmt: skip
    assert done.exit_code == 0, text_of(done)
    return read_result(out)


def test_a_protocol_stricter_than_the_prompt_gives_a_warning(tmp_path: Path) -> None:
    responses = ("Yes.", "No.") * 6
    strict = pope(tmp_path, tmp_path / "a.jsonl", responses, "lmms")
    assert (strict.metrics["f1"], strict.metrics["unparsed_rate"]) == (0.0, 100.0)
    (warning,) = strict.warnings
    assert "'lmms@2' finds no answer in 100.0 % of the responses" in warning
    assert "100.0 % of them are yes or no" in warning
    assert "compare with --protocol clean" in warning
    assert pope(tmp_path, tmp_path / "b.jsonl", responses, "clean").warnings == ()


def test_constant_empty_and_truncated_responses_give_warnings(tmp_path: Path) -> None:
    (warning,) = pope(tmp_path, tmp_path / "a.jsonl", ("Yes",) * 12, "vlmevalkit").warnings
    assert "all 12 parsed answers are 'Yes'" in warning
    few = pope(tmp_path, tmp_path / "b.jsonl", ("Yes",) * 4, "vlmevalkit")
    assert few.warnings == ()
    empty = pope(tmp_path, tmp_path / "c.jsonl", ("",) * 4, "vlmevalkit")
    assert any("100.0 % of the responses are empty" in item for item in empty.warnings)
    replies = "".join(
        json.dumps({"id": str(n), "response": "A", "finish_reason": "length"}) + "\n"
        for n in (1, 2)
    )
    assert "100.0 % of the responses are truncated" in score(
        tmp_path, TABLE, replies
    ).output.replace("\n", " ")


@pytest.mark.parametrize(
    ("files", "rows"),
    [
        (("base/pope.jsonl", "base/ai2d.jsonl"), ["base"]),
        (("base/pope_predictions.jsonl", "base/ai2d.predictions.jsonl"), ["base"]),
        (("x/tuned_pope.jsonl", "x/ai2d-tuned.jsonl"), ["tuned"]),
        (("x/base.jsonl", "y/base.jsonl"), ["base"]),
        (("base/pope.jsonl", "tuned/ai2d.jsonl"), ["base", "tuned"]),
        (("x/one.jsonl", "x/two.jsonl"), ["one", "two"]),
    ],
)
def test_a_report_has_a_row_per_model(
    files: tuple[str, str], rows: list[str], tmp_path: Path
) -> None:
    first, second = (tmp_path / name for name in files)
    pope(tmp_path, first, ("Yes", "No") * 3, "vlmevalkit")
    data = tmp_path / "AI2D_TEST.tsv"
    data.write_text(TABLE)
    second.parent.mkdir(exist_ok=True)
    second.write_text('{"id": "1", "response": "A"}\n{"id": "2", "response": "A"}\n')
    out = second.with_suffix(".json")
    words = ("-b", "ai2d", "--data", data, "--predictions", second)
    assert run("score", *words, "--output", out).exit_code == 0
    numbers = tmp_path / "numbers.json"
    done = run("report", first.with_suffix(".json"), out, "--json", numbers)
    assert done.exit_code == 0, text_of(done)
    assert [row["name"] for row in json.loads(numbers.read_text())["rows"]] == rows


def test_two_checkpoints_with_the_same_name_give_a_warning(tmp_path: Path) -> None:
    data = tmp_path / "AI2D_TEST.tsv"
    data.write_text(TABLE)
    paths = []
    for number, benchmark in enumerate(("ai2d", "scienceqa")):
        replies = tmp_path / f"{number}.jsonl"
        manifest = {"manifest": {"model": "final", "weights": f"w{number}"}}
        lines = [manifest, {"id": "1", "response": "A"}, {"id": "2", "response": "B"}]
        replies.write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths.append(replies.with_suffix(".json"))
        words = ("-b", benchmark, "--data", data, "--predictions", replies, "--output", paths[-1])
        assert run("score", *words).exit_code == 0
    text = " ".join(run("report", *paths).output.split())
    assert "the row 'final' mixes 2 different checkpoints (ai2d, scienceqa)" in text

"""Runs that continue from files with errors, damage or a larger number of responses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.commands import run_command
from support.small_benchmarks import varied_checkpoint

from unidpo_mm.errors import DataError, RecipeError, UniDPOError
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.run import Made, make

LAST = """
from dataclasses import dataclass
from unidpo_mm.authoring import Scorer

@dataclass(frozen=True)
class Last(Scorer):
    scale = (0.0, 255.0)

    def score(self, candidates):
        return [float(sum(candidate.text.encode()) % 256) for candidate in candidates]

SCORER = Last
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Callable[..., Made]:
    """Return a function that makes the data of three prompts, with overrides of the recipe."""
    rows: list[dict[str, Any]] = [{"id": f"p{n}", "prompt": f"What is {n}?"} for n in range(3)]
    write_rows(tmp_path / "questions.jsonl", rows)
    (tmp_path / "last.py").write_text(LAST)
    recipe = {
        "output": str(tmp_path / "made"),
        "model": {"name_or_path": str(model), "dtype": "float32"},
        "prompts": {"sources": [{"path": "questions.jsonl"}]},
        "sample": {"n": 4, "max_new_tokens": 4, "truncated": "keep"},
        "score": {"last": {"scorer": "./last.py"}},
    }
    path = tmp_path / "make.yaml"
    path.write_text(yaml.safe_dump(recipe))

    def make_data(*overrides: str, **options: Any) -> Made:
        return make(load_make_recipe(path, overrides), **options)

    return make_data


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def lines(path: Path) -> list[str]:
    return path.read_text().rstrip("\n").split("\n")  # splitlines() splits at other characters


def change(path: Path, number: int, **values: Any) -> None:
    """Change a record of a file; the first line is its manifest."""
    records = [json.loads(line) for line in lines(path)]
    records[number] |= values
    write_rows(path, records)


@pytest.mark.parametrize("count", [4, 2])
def test_a_response_that_ended_with_an_error_is_repeated(
    run: Callable[..., Made], tmp_path: Path, count: int
) -> None:
    run(until="sample")
    path = tmp_path / "made/responses.jsonl"
    before = path.read_bytes()
    change(path, 3, response="", error="out of memory for a single prompt")
    run(f"sample.n={count}", until="sample")
    assert path.read_bytes() == before


def test_fewer_responses_than_before_remove_no_score(
    run: Callable[..., Made], tmp_path: Path
) -> None:
    run()
    path = tmp_path / "made/scores/last.jsonl"
    before = {json.loads(line).get("id"): line for line in lines(path)}
    change(path, 1, score=None, error="no reply", fault="timeout")
    run("sample.n=2")
    after = {json.loads(line).get("id"): line for line in lines(path)}
    del before[None], after[None]
    assert after == before


def test_responses_of_an_interrupted_larger_run_stay(
    run: Callable[..., Made], tmp_path: Path
) -> None:
    run(until="sample")
    path = tmp_path / "made/responses.jsonl"
    part = tmp_path / "made/responses.parts/0.jsonl"
    part.parent.mkdir()
    path.rename(part)
    run("sample.n=2", until="sample")
    assert len(lines(path)) == 13


def test_damaged_files_are_reported(run: Callable[..., Made], tmp_path: Path) -> None:
    path = tmp_path / "made/responses.jsonl"
    path.parent.mkdir()
    for content in (b"\x00\xff\n", b"[1]\n", b'{"id": "a"}\n', b'{"manifest": 3}\n'):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"responses\.jsonl"):
            run(until="sample")
    path.write_bytes(b"")  # as after a crash of the machine: nothing is lost
    run(until="sample")
    assert len(lines(path)) == 13


def test_a_response_of_blanks_is_scored_once(run: Callable[..., Made], tmp_path: Path) -> None:
    run(until="sample")
    change(tmp_path / "made/responses.jsonl", 2, response=" \n")
    for _ in range(2):
        run()
    assert '"id": "p0#1", "text"' in (tmp_path / "made/scores/last.jsonl").read_text()


def test_changed_settings_are_named(run: Callable[..., Made], tmp_path: Path) -> None:
    run(until="sample")
    with pytest.raises(DataError, match=r": sampling.top_k was 0 and is 5\. "):
        run("sample.top_k=5", until="sample")
    for pilot in (2, 3):  # Each has a directory of its own
        assert len(run(until="sample", pilot=pilot).files.prompts.read_text().splitlines()) == pilot
    rows: list[dict[str, Any]] = [{"id": f"p{n}", "prompt": f"What is {n}?"} for n in (2, 1, 0)]
    write_rows(tmp_path / "questions.jsonl", rows)
    with pytest.raises(DataError, match="other prompts or another order of them"):
        run(until="sample")


def test_a_batch_of_prompts_that_are_all_too_long(run: Callable[..., Made], tmp_path: Path) -> None:
    rows = [{"id": "p0", "prompt": "word " * 3000}, {"id": "p1", "prompt": "What is it?"}]
    write_rows(tmp_path / "questions.jsonl", rows)
    made = run("sample.batch_size=4")
    assert made.funnel.counts["responses"]["not generated"] == 4
    with pytest.raises(RecipeError, match=r"sample\.max_new_tokens: the model takes"):
        run("sample.max_new_tokens=100000", f"output={tmp_path / 'other'}")


def test_missing_media_are_reported_or_skipped(run: Callable[..., Made], tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": f"p{n}", "prompt": f"What is {n}?"} for n in range(3)]
    rows += [
        {"id": "p3", "prompt": "<image>?", "images": ["missing.png"]},
        {"id": "p4", "prompt": "<video>?", "videos": ["missing.mp4"]},
    ]
    write_rows(tmp_path / "questions.jsonl", rows)
    for limit in ("0.0", "0.3"):
        with pytest.raises(DataError) as refused:
            run(f"prompts.images.max_skipped_fraction={limit}", until="prompts")
        assert [problem.where[-5:] for problem in refused.value.problems] == ["row 4", "row 5"]
    made = run("prompts.images.max_skipped_fraction=0.4", until="sample")
    assert made.funnel.counts["prompts"] == {"read": 5, "with missing media": 2, "used": 3}


def test_a_missing_checkpoint_of_a_scorer_is_reported_before_sampling(
    run: Callable[..., Made], tmp_path: Path
) -> None:
    with pytest.raises(UniDPOError, match=r"score\.last, .*missing"):
        run(f"score.last={{scorer: judge, judge: 'local:{tmp_path / 'missing'}'}}")
    assert not (tmp_path / "made/responses.jsonl").exists()


def test_without_pairs_the_reason_for_missing_responses_is_quoted(
    run: Callable[..., Made], tmp_path: Path
) -> None:
    write_rows(tmp_path / "questions.jsonl", [{"id": "p0", "prompt": "word " * 3000}])
    with pytest.raises(DataError, match=r"'p0#0' was not generated: the prompt has 3,0"):
        run()


def test_no_source_is_overwritten(run: Callable[..., Made], tmp_path: Path) -> None:
    shutil.copy(tmp_path / "questions.jsonl", tmp_path / "prompts.jsonl")
    before = (tmp_path / "prompts.jsonl").read_bytes()
    for source in ("prompts.jsonl", "."):
        with pytest.raises(RecipeError, match="would overwrite it"):
            run(f"output={tmp_path}", f"prompts.sources.0.path={source}")
    assert (tmp_path / "prompts.jsonl").read_bytes() == before


def test_an_output_that_cannot_be_created(run: Callable[..., Made], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"output: the directory .* cannot be created"):
        run(f"output={tmp_path / 'make.yaml' / 'made'}")


def test_options_without_effect(run: Callable[..., Made], tmp_path: Path) -> None:
    recipe = str(tmp_path / "make.yaml")
    end = run_command("data", "make", recipe, "--price", "1,2")
    assert end.exit_code == 2
    assert "without --plan" in end.output
    end = run_command("data", "make", recipe, "--share", "1/2", "--until", "prompts")
    assert end.exit_code == 0, end.output
    assert "Stage 'prompts' is finished" in end.output


def test_a_column_that_holds_no_right_answers_can_be_ignored(
    run: Callable[..., Made], tmp_path: Path
) -> None:
    rows = [{"id": "p0", "prompt": "What is it?", "answer": {"a": 1}}]
    write_rows(tmp_path / "questions.jsonl", rows)
    with pytest.raises(DataError, match=r"right answer is a dict.* set prompts\.gold to false"):
        run(until="prompts")
    run("prompts.gold=false", until="prompts")
    assert "gold" not in (tmp_path / "made/prompts.jsonl").read_text()

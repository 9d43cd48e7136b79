"""Warnings about responses and scores after a run."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from support.made_data import write_made_recipe, write_rows

from unidpo_mm.errors import DataError
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.response_table import ResponseTable, table_of
from unidpo_mm.pipelines.run import groups_of, make
from unidpo_mm.pipelines.run_warnings import blind_scorers, correlation, run_warnings


def table(**columns: Any) -> ResponseTable:
    """Return a table of 10 prompts with 4 responses, without anything to warn of."""
    values: dict[str, Any] = {
        "ids": [f"p{n // 4}#{n % 4}" for n in range(40)],
        "prompts": numpy.repeat(numpy.arange(10), 4),
        "lengths": numpy.tile([1.0, 2.0, 3.0, 4.0], 10),
        "unit": "tokens",
        "truncated": numpy.zeros(40, dtype=bool),
        "distinct": numpy.full(10, 4),
        "counts": numpy.full(10, 4),
        "scores": {},
        "right": None,
        "faults": {},
    }
    return ResponseTable(**values | columns)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_rows(tmp_path, [["a", "b"]])
    sample = {"n": 4, "max_new_tokens": 9, "temperature": 0.3, "top_k": 1}
    return write_made_recipe(tmp_path, sample=sample, model={"name_or_path": "none"})


def warnings_of(recipe: Path, /, *overrides: str, **columns: Any) -> list[str]:
    return run_warnings(load_make_recipe(recipe, overrides), table(**columns), [])


def marked(number: int) -> Any:
    return numpy.arange(40) < number


def test_nothing_to_warn_of(recipe: Path):
    assert warnings_of(recipe) == []


def test_truncated_responses(recipe: Path):
    assert warnings_of(recipe, truncated=marked(8)) == []  # 20 %
    (warning,) = warnings_of(recipe, truncated=marked(9))
    assert "22% of the responses are truncated at sample.max_new_tokens = 9" in warning
    assert "95 % of the complete ones have at most 4 tokens" in warning
    assert "none is complete" in warnings_of(recipe, truncated=marked(40))[0]


def test_equal_responses(recipe: Path):
    distinct = numpy.full(10, 4)
    distinct[:5] = 1
    assert warnings_of(recipe, distinct=distinct) == []
    distinct[5] = 1
    (warning,) = warnings_of(recipe, distinct=distinct)
    assert "60% of the prompts have equal responses only" in warning
    assert "sample.temperature, which is 0.3" in warning
    assert "sample.top_k, which is 1" in warning
    assert "server" not in warning


def test_equal_responses_of_a_server(recipe: Path):
    server = ("sample.server.urls=[http://localhost:1/v1]", "sample.server.model=m")
    (warning,) = warnings_of(recipe, *server, distinct=numpy.ones(10, dtype=int))
    assert "--generation-config vllm" in warning


def test_prompts_with_one_response_are_not_equal(recipe: Path):
    ones = numpy.ones(10, dtype=int)
    assert warnings_of(recipe, distinct=ones, counts=ones) == []


@pytest.mark.parametrize(
    ("right", "wrong", "warns"), [(4, 4, False), (5, 4, True), (9, 0, True), (0, 9, True)]
)
def test_right_or_wrong_answers_only(recipe: Path, right: int, wrong: int, warns: bool):
    values = numpy.tile([1.0, 0.0, 1.0, numpy.nan], 10)
    values[: 4 * right] = 1.0
    values[4 * right : 4 * (right + wrong)] = 0.0
    warnings = warnings_of(recipe, right=values)
    assert bool(warnings) is warns
    if warns:
        assert f"{10 * right}% of the prompts have right answers only" in warnings[0]
        assert ("harder" if right > wrong else "easier") in warnings[0]


def test_a_score_that_depends_on_length(recipe: Path):
    lengths = numpy.tile([1.0, 2.0, 3.0, 4.0], 10)
    free = numpy.tile([1.0, -1.0, -1.0, 1.0], 10)
    assert warnings_of(recipe, scores={"words": free}) == []
    (longer,) = warnings_of(recipe, scores={"words": lengths, "free": free})
    assert "The score words prefers longer responses" in longer
    assert "+1.00" in longer
    assert "prefers shorter" in warnings_of(recipe, scores={"words": -lengths})[0]


def test_correlations_skip_missing_scores():
    nan = numpy.nan
    first, second = numpy.array([1.0, 2, nan, 4]), numpy.array([3.0, 2, 9, 1])
    assert correlation(first, second) == pytest.approx(-1)
    assert correlation(numpy.array([1.0, nan]), numpy.array([1.0, 2.0])) is None
    assert correlation(numpy.ones(4), second) is None


@pytest.mark.parametrize("images", [False, True])
def test_scorers_that_do_not_see_images(tmp_path: Path, images: bool):
    write_rows(tmp_path, [["a", "b"], ["c", "d"]], images=images)
    score = {
        "brief": {"scorer": "rules", "max_words": 2},
        "right": {"scorer": "verifier", "answer": "number"},
        "total": {"scorer": "combine", "use": {"brief": 1.0, "right": 1.0}},
    }
    making = load_make_recipe(write_made_recipe(tmp_path, score=score))
    groups = groups_of(making, make(making, until="prompts").prompts.items)
    expected = ["brief (rules) judges 4 responses about images without seeing them."]
    assert [*blind_scorers(making, groups)] == (expected if images else [])


def test_the_table_of_a_run(tmp_path: Path):
    write_rows(tmp_path, [["a b", "a b ", "c d 0"], ["bad", "d e f 1"]])
    score = {
        "right": {"scorer": "verifier", "answer": "number"},
        "words": {"scorer": "./judge.py", "log": str(tmp_path / "log"), "faulty": "bad"},
    }
    score["words"]["max_faults"] = 0.5
    making = load_make_recipe(write_made_recipe(tmp_path, score=score))
    columns = table_of(making, make(making))
    assert columns.unit == "words"
    assert columns.lengths.tolist() == [2, 2, 3, 1, 4]
    assert columns.distinct.tolist() == [2, 2]
    assert columns.prompts.tolist() == [0, 0, 0, 1, 1]
    assert columns.right is not None
    assert columns.right.tolist() == [0, 0, 1, 0, 1]
    numpy.testing.assert_equal(columns.scores["words"], [2, 2, 3, numpy.nan, 4])
    fault = columns.faults["words"]["malformed"]
    assert (fault.number, fault.examples) == (1, [("p1#given-0", "'bad' has no verdict")])


def test_the_largest_loss_is_why_there_is_no_pair(tmp_path: Path):
    write_rows(tmp_path, [["a", "a "], ["b", " b"], ["c", "d"]])
    making = load_make_recipe(write_made_recipe(tmp_path))
    with pytest.raises(DataError, match="the largest loss: 2 prompts with equal responses only"):
        make(making)

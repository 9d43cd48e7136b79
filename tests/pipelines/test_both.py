"""Responses of the sources together with sampled ones, and limits of pairs of the sources."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.small_benchmarks import varied_checkpoint

from unidpo_mm.errors import RecipeError
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.pairs import length_of
from unidpo_mm.pipelines.run import Made, make


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return varied_checkpoint(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture
def run(model: Path, tmp_path: Path) -> Callable[..., Made]:
    """Return a function that adds two responses of a model to rows with responses."""

    def make_data(rows: list[dict[str, Any]], *overrides: str) -> Made:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "pairs.jsonl").write_text(text)
        recipe = {
            "output": str(tmp_path / "made"),
            "model": {"name_or_path": str(model), "dtype": "float32"},
            "prompts": {"sources": [{"path": "pairs.jsonl"}]},
            "sample": {"responses": "both", "n": 2, "max_new_tokens": 4, "truncated": "keep"},
            "score": {"few": {"scorer": "rules", "max_words": 2, "matches": "[a-c]"}},
            "pair": {"rule": "given"},
        }
        path = tmp_path / "make.yaml"
        path.write_text(yaml.safe_dump(recipe))
        return make(load_make_recipe(path, overrides))

    return make_data


ROW = {"prompt": "Say a word.", "chosen": "a b c", "rejected": "words that are long"}
OTHER = {"prompt": "Say a word.", "chosen": "d", "rejected": "e f"}


def test_rows_with_one_prompt_keep_their_responses(run: Callable[..., Made]) -> None:
    made = run([ROW, OTHER])
    pairs = [
        (row.rated[chosen].text, row.rated[rejected].text)
        for row in made.rows
        for chosen, rejected in row.pairs
    ]
    assert pairs == [(row["chosen"], row["rejected"]) for row in (ROW, OTHER)]
    assert [len(row.ids) for row in made.rows] == [4, 4]


def test_a_row_without_responses_gets_sampled_ones_only(run: Callable[..., Made]) -> None:
    made = run([ROW, {"prompt": "And now?"}])
    assert len(made.responses) == 2 + 2 + 2
    assert not any("(none yet)" in record["response"] for record in made.responses.values())
    assert made.funnel.counts["responses"]["expected"] == 6


def test_lengths_are_in_one_unit(run: Callable[..., Made]) -> None:
    made = run([ROW])
    assert any("new_tokens" in record for record in made.responses.values())
    assert all(item.length == len(item.text.split()) for item in made.rows[0].rated)
    records: list[dict[str, Any]] = [{"response": "a b", "new_tokens": 5}, {"response": ""}]
    assert length_of(records)(records[0]) == 5


def test_sampled_responses_need_a_score(run: Callable[..., Made]) -> None:
    for rule in ("given", "all"):
        with pytest.raises(RecipeError, match="'score': without a score"):
            run([ROW], "score={}", f"pair.rule={rule}")


def test_limits_that_given_pairs_do_not_have_are_refused(run: Callable[..., Made]) -> None:
    limits = ("pair.min_margin=0.5", "pair.gates.chosen=[few >= 1]")
    with pytest.raises(RecipeError) as refused:
        run([ROW], *limits)
    for key in ("pair.min_margin", "pair.gates"):
        assert f"key '{key}': the rule 'given' keeps the pairs" in str(refused.value)

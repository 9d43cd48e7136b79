"""Numbers that no option can have are refused in every section, each once."""

import math

import pytest

from unidpo_mm.config import load_recipe
from unidpo_mm.config.numbers import unusable_numbers, written
from unidpo_mm.errors import RecipeError

RECIPE = "model: {name_or_path: a/b}\ndata: {sources: [{path: c/d}]}\n"


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf"])
@pytest.mark.parametrize(
    "key",
    [
        "train.learning_rate",
        "train.ANY_KEY",
        "train.memory",
        "loss.tau_good",
        "data.eval_fraction",
        "data.sources.0.loss.beta",
        "data.sources.0.scores.min_margin",
        "model.init_kwargs.x",
        "model.chat_template_kwargs.deep.key",
        "run.callbacks.any.every",
    ],
)
def test_numbers_that_are_not_finite_are_refused_everywhere(tmp_path, key: str, number: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    with pytest.raises(RecipeError) as error:
        load_recipe(path, [f"{key}={number}"])
    (problem,) = error.value.problems
    assert f"key '{key}'" in problem.where
    assert problem.message == f"found {number}, which is not a finite number"


def test_items_of_lists_are_refused_together_with_other_problems(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE + "train: {seed: 1, memory: [a]}\n")
    with pytest.raises(RecipeError) as error:
        load_recipe(path, ["data.score_scale=[0, .inf]", "data.max_length=" + "9" * 30])
    texts = sorted(str(problem) for problem in error.value.problems)
    assert len(texts) == 3, texts
    assert "key 'data.score_scale.1': found .inf" in " ".join(texts)
    assert "key 'data.max_length': found a whole number with 30 digits" in " ".join(texts)
    assert "key 'train.memory'" in " ".join(texts)


def test_usable_numbers_pass():
    assert not list(unusable_numbers({"a": [1, 2.5, True, None, "inf"], "b": -(2**63) + 1}))
    assert [written(x) for x in (math.nan, math.inf, -math.inf, 0.5)] == [
        ".nan",
        ".inf",
        "-.inf",
        "0.5",
    ]

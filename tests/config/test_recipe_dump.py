"""Reading what was written gives the same recipe, for all texts and numbers."""

import string
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from unidpo_mm.config import Recipe, dump_recipe, load_recipe

TRAPS = [
    "None",
    "none",
    "no",
    "yes",
    "1e-6",
    "12",
    "true",
    "null",
    "~",
    "1_000",
    "2024-01-01",
    "0x1f",
    ".inf",
    "<<",
    "=",
    "a: b",
    "# x",
    " x ",
    "'",
    '"',
    "é",
    "a\nb",
    "-",
    "!x",
    "&a",
]

texts = st.one_of(
    st.sampled_from(TRAPS),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
)
numbers = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
)
values = st.recursive(
    numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
keys = st.text(string.ascii_lowercase, min_size=12, max_size=14)  # longer than any option's name
finite = st.floats(allow_nan=False, allow_infinity=False)
paths = texts.map("absent ".__add__)  # a path that exists would be made absolute
scales = (
    st.lists(finite, min_size=2, max_size=2, unique=True)
    .map(sorted)
    .filter(lambda scale: scale[1] - scale[0] != float("inf"))
)


def section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


sources = st.fixed_dictionaries(
    {"path": paths},
    optional={
        "images": paths,
        "domain": st.sampled_from(["text", "math", "multimodal", None]),
        "scores": section(scale=scales, judge=texts),
        "loss": section(beta=finite, tau_good=finite | st.just("median")),
    },
)
recipes = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"name_or_path": paths},
            optional={
                "dtype": st.sampled_from(["auto", "bfloat16"]),
                "freeze": st.none() | st.lists(texts, max_size=2),
                "lora": st.none() | section(r=st.integers(1, 99), targets=texts | st.lists(texts)),
                "init_kwargs": st.dictionaries(texts, values, max_size=2),
            },
        ),
        "data": st.fixed_dictionaries(
            {"sources": st.lists(sources, min_size=1, max_size=2)},
            optional={"score_scale": scales, "max_length": st.none() | st.integers(1, 10**6)},
        ),
    },
    optional={
        "loss": st.dictionaries(keys, values, max_size=3),
        "train": st.dictionaries(keys, values, max_size=3),
    },
).map(Recipe.model_validate)


@settings(max_examples=30, deadline=None)  # the machine may be busy
@given(recipes)
def test_loading_what_was_dumped_is_the_identity(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
):
    check_dump(tmp_path_factory, recipe)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(recipes)
def test_loading_what_was_dumped_is_the_identity_for_many_recipes(
    tmp_path_factory: pytest.TempPathFactory, recipe: Recipe
):
    check_dump(tmp_path_factory, recipe)


def check_dump(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.getbasetemp() / "dumped.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize("text", TRAPS)
def test_other_readers_of_yaml_see_the_same_texts(text: str):
    recipe = Recipe.model_validate(
        {"model": {"name_or_path": text}, "data": {"sources": [{"path": "x"}]}}
    )
    assert yaml.safe_load(dump_recipe(recipe))["model"]["name_or_path"] == text


def test_lists_are_dumped_without_a_warning(recwarn: pytest.WarningsRecorder):
    model = {"name_or_path": "m", "freeze": ["vision_tower"], "lora": {"targets": ["q_proj"]}}
    data = {"sources": [{"path": "d", "scores": {"scale": [0, 5]}}], "score_scale": [0, 10]}
    recipe = Recipe.model_validate({"model": model, "data": data})
    content = recipe.model_dump()
    assert content["model"]["freeze"] == ["vision_tower"]
    assert content["data"]["score_scale"] == [0, 10]
    assert not recwarn.list

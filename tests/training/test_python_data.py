"""Data from Python: image directory, several evaluation sets, and remedies for Python."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import BAD, PAIR, Bad, write_surroundings
from builders import load_tiny, make_image
from trainers import config

from unidpo_mm.adapter import Adapter
from unidpo_mm.errors import DataError, Problem
from unidpo_mm.training.configured_loss import configured_loss
from unidpo_mm.training.prepare import Prepared, prepare

IN_MEMORY = [case for title, cases in BAD.items() if title != "Files" for case in cases]
RECIPE_WORDS = re.compile(r"source's|data\.[a-z]|columns: |'images_outside'|'fetch_images'|recipe")
"""Words that only remedies for recipes may contain."""


@pytest.fixture(scope="module")
def adapter(checkpoint: Callable[[str], Path]) -> Adapter:
    return load_tiny(checkpoint("llava")).adapter


def prepared(
    adapter: Adapter, folder: Path, train: Any, held_out: Any = None, **settings: Any
) -> Prepared:
    args = config(folder / "out", **{"loss_type": "dpo", **settings})
    family: Any = None
    result = prepare(train, held_out, args, configured_loss(args), lambda: (family, adapter))
    result.raise_problems()
    return result


def problems_of(*arguments: Any, **settings: Any) -> list[Problem]:
    with pytest.raises(DataError) as error:
        prepared(*arguments, **settings)
    return list(error.value.problems)


# ---- images ----


def test_relative_image_paths_are_resolved_against_the_image_directory(
    adapter: Adapter, tmp_path: Path
) -> None:
    make_image(1).save(tmp_path / "a.png")
    record = {**PAIR, "images": ["a.png"]}
    data = prepared(adapter, tmp_path, [record], [record], images=str(tmp_path))
    assert [row.images[0].describe() for row in (*data.train_rows, *data.eval_rows)] == [
        str(tmp_path / "a.png")
    ] * 2
    (problem,) = problems_of(adapter, tmp_path, [record])
    assert problem.where == "data set 'data' row 1, field 'images'"
    assert "set `images` of UniDPOConfig" in problem.remedy


def test_a_wrong_image_directory_is_reported_once(adapter: Adapter, tmp_path: Path) -> None:
    records = [{**PAIR, "images": [f"{number}.png"]} for number in range(100)]
    with pytest.raises(DataError) as error:
        prepared(adapter, tmp_path, records, images=str(tmp_path / "wrong"))
    assert len(error.value.problems) == 100
    assert len(str(error.value).splitlines()) == 2
    assert "The same for 99 more" in str(error.value)


def test_rows_without_scores_are_reported_once_with_the_option_for_them(
    adapter: Adapter, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        prepared(adapter, tmp_path, [PAIR] * 60, loss_type="uni_dpo")
    assert len(error.value.problems) == 120
    assert len(str(error.value).splitlines()) == 2
    assert "set `scores` of UniDPOConfig to {'missing': 0.5}" in str(error.value)
    data = prepared(adapter, tmp_path, [PAIR] * 2, loss_type="uni_dpo", scores={"missing": 0.5})
    assert len(data.train_rows) == 2


@pytest.mark.parametrize("bad", IN_MEMORY, ids=[case.kind for case in IN_MEMORY])
def test_no_remedy_for_python_names_a_recipe_key(
    bad: Bad, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_surroundings(tmp_path)
    monkeypatch.chdir(tmp_path)
    scores = {k: v for k, v in bad.source.items() if k in ("scale", "misordered", "ties")}
    settings: dict[str, Any] = {"scores": scores} if scores else {}
    if "images" in bad.source:
        settings["images"] = str(tmp_path)
    if bad.source.get("needs_scores"):
        settings["loss_type"] = "uni_dpo"
    try:
        prepared(adapter, tmp_path, list(bad.records), **settings)
    except DataError as error:
        for problem in error.problems:
            assert not RECIPE_WORDS.search(problem.remedy), problem
    else:
        assert bad.outcome == "skipped" or "max_pixels" in bad.source


def test_other_remedies_also_name_the_python_option(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    narrow = load_tiny(checkpoint("qwen2_vl"), max_length=20, length_policy="error").adapter
    records = [
        {"q": 1},
        {**PAIR, "prompt": "word " * 50},
        {**PAIR, "images": [make_image(1, (600, 2))]},
    ]
    problems = problems_of(narrow, tmp_path, records, max_length=20, length_policy="error")
    assert len(problems) == 3
    for problem in problems:
        assert not RECIPE_WORDS.search(problem.remedy), problem
    assert "raise max_skipped_fraction" in problems[2].remedy


# ---- evaluation sets ----


def test_a_dict_of_evaluation_sets_keeps_its_names(adapter: Adapter, tmp_path: Path) -> None:
    easy = [{**PAIR, "prompt": f"Easy {number}?"} for number in range(3)]
    broken = {**PAIR, "images": ["gone.png"]}
    hard = [{**PAIR, "prompt": "Hard?"}, broken]
    data = prepared(
        adapter, tmp_path, [PAIR] * 3, {"easy": easy, "hard": hard}, max_skipped_fraction=0.4
    )
    assert {name: len(rows) for name, rows in data.eval_sets.items()} == {"easy": 3, "hard": 1}
    assert data.eval_rows == [*data.eval_sets["easy"], *data.eval_sets["hard"]]
    assert len(data.train_rows) == 3
    assert data.preflight is not None
    assert data.preflight.skipped == {7}
    assert len({row.id for row in data.eval_rows}) == 4


def test_one_evaluation_set_has_no_name(adapter: Adapter, tmp_path: Path) -> None:
    data = prepared(adapter, tmp_path, [PAIR], [PAIR])
    assert list(data.eval_sets) == [""]
    assert len(data.eval_rows) == 1
    split = prepared(
        adapter,
        tmp_path,
        [{**PAIR, "prompt": f"{number}?"} for number in range(10)],
        eval_fraction=0.3,
    )
    assert list(split.eval_sets) == [""]
    assert len(split.eval_rows) == 3


def test_problems_name_their_evaluation_set(adapter: Adapter, tmp_path: Path) -> None:
    (problem,) = problems_of(adapter, tmp_path, [PAIR], {"val": [{**PAIR, "chosen": ""}]})
    assert problem.where == "data set 'evaluation data val' row 1, field 'chosen'"


@pytest.mark.parametrize("sets", [{}, {"": [PAIR]}, {3: [PAIR]}, {"a": None}])
def test_sets_without_a_name_or_data_are_refused(
    adapter: Adapter, tmp_path: Path, sets: Any
) -> None:
    assert problems_of(adapter, tmp_path, [PAIR], sets)[0].where.startswith("eval_dataset")

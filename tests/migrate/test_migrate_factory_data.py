"""Data sets by their registered names: what is read of `dataset_info.json`, and what is said."""

import json
from functools import partial
from pathlib import Path

import migrations
import pytest

from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import migrate

REGISTRY = {
    "street_signs": {
        "file_name": "signs/pairs.json",
        "ranking": True,
        "columns": {
            "prompt": "prompt",
            "chosen": "chosen",
            "rejected": "rejected",
            "images": "images",
            "score_chosen": "score_chosen",
            "score_rejected": "score_rejected",
        },
    },
    "menus": {
        "hf_hub_url": "someone/menus",
        "split": "train_pairs",
        "subset": "en",
        "columns": {"prompt": "what_is_asked", "chosen": "chosen", "rejected": "rejected"},
    },
    "notes": {"file_name": "notes.csv", "columns": {"prompt": "prompt"}},
    "shop": {"ms_hub_url": "someone/shop", "columns": {"prompt": "prompt"}},
}

SHORT = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\n"
BOTH = SHORT.replace("pairs", "street_signs, menus")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


migrated = partial(migrations.migrated, origin="LLaMA-Factory")


def register(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "dataset_info.json").write_text(json.dumps(REGISTRY))


def test_data_sets_are_read_from_the_registry(folder: Path) -> None:
    register(folder)
    recipe, notes = migrated(folder, BOTH)
    signs, menus = recipe.data.sources
    assert signs.path == "data/signs/pairs.json"
    assert (signs.images, signs.name) == (str(folder / "data"), "street_signs")
    assert (menus.path, menus.split, menus.images) == ("someone/menus", "train_pairs", None)
    assert "street_signs" not in notes["dataset"]
    assert "of the rows of 'menus' the column" in notes["dataset"]
    assert "'what_is_asked'" in notes["dataset"]
    assert "'prompt' is missing: make a copy of the data" in notes["dataset"]
    assert "'subset' of 'menus' in dataset_info.json is not read" in notes["dataset"]


def test_a_registry_beside_the_file_is_found_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(folder)
    (folder / "theirs.yaml").write_text(BOTH)
    (folder / "away").mkdir()
    monkeypatch.chdir(folder / "away")
    result = migrate(Path("../theirs.yaml"))
    assert "path: ../data/signs/pairs.json" in result.recipe


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("notes", "data/notes.csv", "'notes.csv' is none of the files that are read"),
        ("shop", "someone/shop", "'shop' comes from ms_hub_url, which is not read"),
        ("gone", "gone", "'gone' is not in data/dataset_info.json"),
    ],
    ids=["a csv file", "another hub", "not registered"],
)
def test_data_that_cannot_be_read_is_noted(folder: Path, name: str, path: str, text: str) -> None:
    register(folder)
    recipe, notes = migrated(folder, SHORT.replace("pairs", name))
    assert recipe.data.sources[0].path == path
    assert text in notes["dataset"]


def test_without_a_registry_the_name_stands_as_the_path(folder: Path) -> None:
    recipe, notes = migrated(folder, SHORT + "media_dir: pictures\n")
    assert recipe.data.sources[0].path == "pairs"
    assert recipe.data.sources[0].images == "pictures"
    assert "there is no data/dataset_info.json" in notes["dataset"]


def test_a_broken_registry_is_an_error_with_the_others(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "dataset_info.json").write_text("{")
    with pytest.raises(RecipeError) as caught:
        migrated(folder, SHORT + "pref_loss: kto_pair\n")
    message = str(caught.value)
    assert "dataset_info.json: it cannot be read as JSON" in message
    assert "there is no loss for 'kto_pair'" in message


def test_a_number_of_held_out_rows_is_no_share(folder: Path) -> None:
    recipe, notes = migrated(folder, SHORT + "val_size: 200\neval_strategy: steps\n")
    assert recipe.data.eval_fraction == 0.0
    assert "200 is a number of rows" in notes["val_size"]
    assert recipe.train.arguments["eval_strategy"] == "no"
    assert "nothing is held out" in notes["eval_strategy"]

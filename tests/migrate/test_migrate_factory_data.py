"""Data sets by their registered names: what is read of `dataset_info.json`, and what is said."""

import json
from functools import partial
from pathlib import Path

import migrations
import pytest
from builders import make_image

from unidpo_mm.data.load import load_rows
from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import migrate
from unidpo_mm.training.recipe_arguments import source_file

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
        "revision": "v2",
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


def test_data_sets_are_entries_of_the_registry(folder: Path) -> None:
    register(folder)
    recipe, notes = migrated(folder, BOTH)
    signs, menus = recipe.data.sources
    registry = str(folder / "data" / "dataset_info.json")
    assert (signs.path, signs.subset, signs.images) == (registry, "street_signs", None)
    assert (menus.path, menus.subset) == (registry, "menus")
    assert "street_signs" not in notes["dataset"]
    assert "'menus' has no 'ranking': true" in notes["dataset"]
    assert "'revision' of 'menus' in dataset_info.json is not read" in notes["dataset"]


def test_a_registered_data_set_is_read_as_its_entry_says(folder: Path) -> None:
    """The official image data are registered with all columns under their usual names."""
    register(folder)
    (folder / "data" / "signs").mkdir()
    record = {"prompt": "<image>What?", "chosen": "a", "rejected": "b", "images": ["signs/p.png"]}
    scored = {**record, "score_chosen": 4, "score_rejected": 1}
    (folder / "data" / "signs" / "pairs.json").write_text(json.dumps([scored]))
    make_image(1).save(folder / "data" / "signs" / "p.png")
    recipe, _ = migrated(folder, SHORT.replace("pairs", "street_signs"))
    (source,) = recipe.data.sources
    (row,) = load_rows([source_file(source, recipe.data)])
    assert (row.source, row.messages[0].image_slots) == ("street_signs", 1)
    assert [r.score for r in row.responses] == [4.0, 1.0]
    assert row.images[0].open().size == (40, 30)


def test_a_registry_beside_the_file_is_found_from_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(folder)
    (folder / "theirs.yaml").write_text(BOTH)
    (folder / "away").mkdir()
    monkeypatch.chdir(folder / "away")
    result = migrate(Path("../theirs.yaml"))
    assert "path: ../data/dataset_info.json" in result.recipe


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("notes", "data/dataset_info.json", "'notes.csv' is none of the files that are read"),
        ("shop", "data/dataset_info.json", "'shop' comes from ms_hub_url, which is not read"),
        ("gone", "gone", "'gone' is not in data/dataset_info.json"),
    ],
    ids=["a csv file", "another hub", "not registered"],
)
def test_data_that_cannot_be_read_is_noted(folder: Path, name: str, path: str, text: str) -> None:
    register(folder)
    recipe, notes = migrated(folder, SHORT.replace("pairs", name))
    assert recipe.data.sources[0].path.endswith(path)
    assert text in notes["dataset"]


def test_without_a_registry_the_name_stands_as_the_path(folder: Path) -> None:
    recipe, notes = migrated(folder, SHORT + "media_dir: images\n")
    assert recipe.data.sources[0].path == "pairs"
    assert recipe.data.sources[0].images == "images"
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

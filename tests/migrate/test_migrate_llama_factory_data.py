"""LLaMA-Factory's data sets: entries of `dataset_info.json` and notes on them."""

import json
from functools import partial
from pathlib import Path

import pytest
from builders import make_image
from migrations import migrate_text

from unidpo_mm.data.load import load_rows
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
        "revision": "v2",
        "columns": {"prompt": "what_is_asked", "chosen": "chosen", "rejected": "rejected"},
    },
    "clips": {"file_name": "c.json", "ranking": True, "columns": {"videos": "videos"}},
    "notes": {"file_name": "notes.csv", "columns": {"prompt": "prompt"}},
    "shop": {"ms_hub_url": "someone/shop", "columns": {"prompt": "prompt"}},
}

SHORT = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\n"
BOTH = SHORT.replace("pairs", "street_signs, menus")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


migrated = partial(migrate_text, framework="LLaMA-Factory")


def register(directory: Path) -> None:
    (directory / "data").mkdir()
    (directory / "data" / "dataset_info.json").write_text(json.dumps(REGISTRY))


def test_data_with_videos_are_sampled_as_in_llama_factory(directory: Path) -> None:
    register(directory)
    recipe, _ = migrated(directory, SHORT.replace("pairs", "clips"))
    data = recipe.data
    assert (data.video_fps, data.video_max_frames, recipe.model.video_max_pixels) == (
        2.0,
        128,
        65536,
    )
    recipe, _ = migrated(directory, SHORT.replace("pairs", "clips") + "video_maxlen: 8\n")
    assert (recipe.data.video_max_frames, recipe.model.video_max_pixels) == (8, 65536)
    recipe, _ = migrated(directory, SHORT.replace("pairs", "street_signs"))
    assert (recipe.data.video_max_frames, recipe.model.video_max_pixels) == (32, None)


def test_sources_are_entries_of_the_registry(directory: Path) -> None:
    register(directory)
    recipe, notes = migrated(directory, BOTH)
    signs, menus = recipe.data.sources
    registry = str(directory / "data" / "dataset_info.json")
    assert (signs.path, signs.subset, signs.images) == (registry, "street_signs", None)
    assert (menus.path, menus.subset) == (registry, "menus")
    assert "street_signs" not in notes["dataset"]
    assert "'menus' has neither 'ranking': true nor a column 'kto_tag'" in notes["dataset"]
    assert "'revision' of 'menus' in dataset_info.json is ignored" in notes["dataset"]


def test_registered_data_sets_are_read_by_their_entries(directory: Path) -> None:
    """The official image data are registered with all columns under their usual names."""
    register(directory)
    (directory / "data" / "signs").mkdir()
    record = {"prompt": "<image>What?", "chosen": "a", "rejected": "b", "images": ["signs/p.png"]}
    scored = {**record, "score_chosen": 4, "score_rejected": 1}
    (directory / "data" / "signs" / "pairs.json").write_text(json.dumps([scored]))
    make_image(1).save(directory / "data" / "signs" / "p.png")
    recipe, _ = migrated(directory, SHORT.replace("pairs", "street_signs"))
    (source,) = recipe.data.sources
    (row,) = load_rows([source])
    assert (row.source, row.messages[0].slots("image")) == ("street_signs", 1)
    assert [r.score for r in row.responses] == [4.0, 1.0]
    assert row.images[0].open().size == (40, 30)


def test_registry_is_relative_to_the_configuration(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(directory)
    (directory / "config.yaml").write_text(BOTH)
    (directory / "away").mkdir()
    monkeypatch.chdir(directory / "away")
    result = migrate(Path("../config.yaml"))
    assert "path: ../data/dataset_info.json" in result.recipe


@pytest.mark.parametrize(
    ("name", "path", "text"),
    [
        ("notes", "data/dataset_info.json", "'notes.csv' is not in a supported file format"),
        ("shop", "data/dataset_info.json", "'shop' comes from ms_hub_url, which is not supported"),
        ("absent", "absent", "data/dataset_info.json has no 'absent'"),
    ],
    ids=["a csv file", "another hub", "not registered"],
)
def test_unreadable_data_sets_have_a_note(directory: Path, name: str, path: str, text: str) -> None:
    register(directory)
    recipe, notes = migrated(directory, SHORT.replace("pairs", name))
    assert recipe.data.sources[0].path.endswith(path)
    assert text in notes["dataset"]


def test_without_a_registry_the_name_is_the_path(directory: Path) -> None:
    recipe, notes = migrated(directory, SHORT + "media_dir: images\n")
    assert recipe.data.sources[0].path == "pairs"
    assert recipe.data.sources[0].images == "images"
    assert "data/dataset_info.json does not exist" in notes["dataset"]


def test_broken_registry_is_reported_with_other_problems(directory: Path) -> None:
    (directory / "data").mkdir()
    (directory / "data" / "dataset_info.json").write_text("{")
    with pytest.raises(RecipeError) as caught:
        migrated(directory, SHORT + "pref_loss: kto_pair\n")
    message = str(caught.value)
    assert "dataset_info.json: cannot be read as JSON" in message
    assert "there is no loss 'kto_pair'" in message


def test_a_number_of_held_out_rows_has_a_note(directory: Path) -> None:
    recipe, notes = migrated(directory, SHORT + "val_size: 200\neval_strategy: steps\n")
    assert recipe.data.eval_fraction == 0.0
    assert "200 is a number of rows" in notes["val_size"]
    assert recipe.train.arguments["eval_strategy"] == "no"
    assert "no rows are held out" in notes["eval_strategy"]

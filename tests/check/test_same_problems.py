"""`data check` and a run's dry run refuse the same rows in the same words, for every bad input."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bad_input import BAD, PAIR, Bad, encoded, write_surroundings
from support.commands import run_command

from unidpo_mm import UniDPOConfig
from unidpo_mm.check import CheckReport, check_data
from unidpo_mm.cli.data import _read_recipe
from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.config.from_recipe import config_of
from unidpo_mm.errors import DataError, RecipeError, UniDPOError
from unidpo_mm.training import run as training_run
from unidpo_mm.training import setup
from unidpo_mm.training.configured_loss import configured_loss
from unidpo_mm.training.prepare import Prepared, check_part_names, prepare

OF_SCORES = ("scale", "misordered", "ties", "min_margin", "missing")
OF_IMAGES = ("fetch_private_addresses", "max_pixels")
NARROW = (600, 2)
"""A size that the processor of Qwen2-VL refuses: its sides differ by more than 200 times."""


def as_text(value: Any) -> str:
    """Write the bytes of an image as a file can hold them."""
    if isinstance(value, bytes):
        return f"data:image/png;base64,{base64.b64encode(value).decode()}"
    raise TypeError(f"{type(value).__name__} is of rows in memory alone")


def lines_of(bad: Bad) -> str | None:
    try:
        return "".join(json.dumps(record, default=as_text) + "\n" for record in bad.records)
    except TypeError:
        return None


IN_FILES = [item for cases in BAD.values() for item in cases if lines_of(item) is not None]


KEPT: dict[Any, Any] = {}


@pytest.fixture(autouse=True)
def one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each processor once for all tests: loading it is not what is compared."""
    load = setup.load_family_and_adapter

    def once(name: Any, args: Any, processing_class: Any = None) -> Any:
        key = str(name), args.max_length, args.length_policy
        if key not in KEPT:
            KEPT[key] = load(name, args, processing_class)
        return KEPT[key]

    for module in ("unidpo_mm.training.setup", "unidpo_mm.check.run"):
        monkeypatch.setattr(f"{module}.load_family_and_adapter", once)


@pytest.fixture
def model(checkpoint: Callable[[str], Path]) -> Path:
    return checkpoint("qwen2_vl")


def recipe_of(
    folder: Path, model: Path, source: dict[str, Any], *, loss: str = "dpo", **data: Any
) -> Path:
    path = folder / "recipe.yaml"
    sections = {
        "model": {"name_or_path": str(model)},
        "data": {"sources": [source], **data},
        "loss": {"name": loss},
        "train": {"output_dir": str(folder / "out")},
    }
    path.write_text(json.dumps(sections))
    return path


def checked(path: Path) -> CheckReport:
    files, held_out, settings = _read_recipe(path, as_a_run=False)
    return check_data(files, settings, held_out=held_out)


def of_check(path: Path) -> set[str]:
    try:
        return {str(problem) for problem in checked(path).problems}
    except UniDPOError as error:
        return {str(problem) for problem in error.problems}


def of_run(path: Path) -> set[str]:
    """Return the problems of a run, up to where the weights of the model are read."""
    recipe = load_recipe(path)
    args = config_of(recipe)
    try:
        return {str(problem) for problem in prepared_run(recipe, args).problems}
    except UniDPOError as error:
        return {str(problem) for problem in error.problems}


def prepared_run(recipe: Recipe, args: UniDPOConfig) -> Prepared:
    def load_adapter() -> Any:
        return setup.load_family_and_adapter(recipe.model.name_or_path, args)

    return prepare(*training_run.data_files(recipe), args, configured_loss(args), load_adapter)


def written(bad: Bad, folder: Path) -> dict[str, Any]:
    """Write a kind of bad input as a file; return its source."""
    aside = (*OF_SCORES, *OF_IMAGES, "needs_scores")
    source = {name: value for name, value in bad.source.items() if name not in aside}
    if "images" in source:
        source["images"] = str(folder)
    scores = {name: value for name, value in bad.source.items() if name in OF_SCORES}
    path = folder / "rows.jsonl"
    if bad.file is None:
        path.write_text(lines_of(bad) or "")
    else:
        name, content = bad.file
        path = folder / name
        if not name.endswith("/") and name != "-":
            path.write_bytes(content)
    return {**source, "path": str(path), **({"scores": scores} if scores else {})}


@pytest.mark.parametrize("bad", IN_FILES, ids=[item.kind for item in IN_FILES])
def test_every_kind_of_bad_input(
    bad: Bad, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(tmp_path / "cache"))
    write_surroundings(tmp_path)
    source = written(bad, tmp_path)
    images = {name: bad.source[name] for name in OF_IMAGES if name in bad.source}
    loss = "uni_dpo" if "needs_scores" in bad.source else "dpo"
    path = recipe_of(tmp_path, model, source, images=images, loss=loss)
    refused = of_run(path)
    assert of_check(path) == refused
    assert refused, "the input is bad"


def rows(folder: Path, *records: dict[str, Any]) -> dict[str, Any]:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record, default=as_text) + "\n" for record in records))
    return {"path": str(path)}


GOOD = {**PAIR, "images": [encoded()]}
LONG = {**PAIR, "prompt": "word " * 200}
REFUSED = {**PAIR, "images": [encoded(size=NARROW)]}
TOKEN = {**PAIR, "prompt": "What is <|image_pad|>?", "images": [encoded()]}
BROKEN = {**PAIR, "images": ["gone.png"]}
BAD_ROW = {**PAIR, "chosen": ""}
SAME_TEXT = {**PAIR, "rejected": "yes "}


@pytest.mark.parametrize(
    ("records", "data", "report_text"),
    [
        ([GOOD, REFUSED], {}, "the model's processor refuses the image"),
        ([GOOD, REFUSED, BAD_ROW], {}, "the model's processor refuses the image"),
        ([GOOD, TOKEN], {}, "placeholders"),
        ([GOOD, LONG], {"max_length": 60, "length_policy": "error"}, "row 2"),
        ([LONG, LONG], {"max_length": 60, "length_policy": "drop"}, "every row is skipped"),
        ([GOOD, BROKEN], {"images": {"max_skipped_fraction": 0.4}}, "does not exist"),
        ([GOOD, BROKEN, REFUSED], {"images": {"max_skipped_fraction": 0.4}}, "refuses"),
        ([GOOD, BROKEN], {"preflight": False, "length_policy": "drop"}, "can only be skipped"),
        ([{**PAIR, "weight": 0}] * 2, {}, "the weights of all 2 pairs are 0"),
        ([{"prompt": "?", "responses": [{"text": "a", "score": 1}]}], {}, "no pair"),
    ],
)
def test_problems_that_only_a_model_or_a_length_policy_reports(
    tmp_path: Path, model: Path, records: list[Any], data: dict[str, Any], report_text: str
) -> None:
    path = recipe_of(tmp_path, model, rows(tmp_path, *records), **data)
    refused = of_run(path)
    assert any(report_text in text for text in refused), refused
    if data.get("preflight") is False:  # the check looks all the same
        assert refused <= of_check(path)
    else:
        assert of_check(path) == refused


def test_held_out_rows_are_checked_like_training_rows(tmp_path: Path, model: Path) -> None:
    (tmp_path / "held.jsonl").write_text(json.dumps(REFUSED, default=as_text))
    source = rows(tmp_path, GOOD)
    held_out = [{"path": str(tmp_path / "held.jsonl")}]
    path = recipe_of(tmp_path, model, source, eval_sources=held_out)
    assert of_check(path) == of_run(path) != set()
    path = recipe_of(tmp_path, model, source, eval_sources=held_out, loss="uni_dpo")
    assert of_check(path) == of_run(path)
    assert sum("the score is missing" in text for text in of_check(path)) == 4


def test_an_image_that_the_processor_refuses_can_be_skipped(tmp_path: Path, model: Path) -> None:
    source = rows(tmp_path, *[GOOD] * 5, REFUSED)
    path = recipe_of(tmp_path, model, source, images={"max_skipped_fraction": 0.5})
    assert of_run(path) == set()
    report = checked(path)
    assert not report.problems
    assert any("1 row would be skipped because of images" in text for text in report.warnings)


def test_distinct_prompts_are_those_of_the_dry_run(tmp_path: Path, model: Path) -> None:
    for name, size in (("a", (40, 30)), ("copy", (40, 30)), ("b", (30, 40))):
        from builders import make_image

        make_image(1, size).save(tmp_path / f"{name}.png")
    records = [{**PAIR, "images": [f"{name}.png"]} for name in ("a", "copy", "b", "a")]
    source = rows(tmp_path, *records, PAIR, PAIR, {**PAIR, "tools": [{"name": "f"}]})
    (tmp_path / "held.jsonl").write_text(json.dumps({**PAIR, "prompt": "Where?"}))
    path = recipe_of(tmp_path, model, source, eval_sources=[{"path": str(tmp_path / "held.jsonl")}])
    recipe = load_recipe(path)
    args = config_of(recipe)
    prepared = prepared_run(recipe, args)
    assert prepared.preflight is not None
    assert prepared.preflight.prompts == checked(path).prompts == 4


def test_a_model_that_cannot_be_loaded_is_the_same_error(tmp_path: Path) -> None:
    path = recipe_of(tmp_path, tmp_path / "none", rows(tmp_path, GOOD))
    assert of_check(path) == of_run(path)
    assert len(of_check(path)) == 1
    path = recipe_of(tmp_path, tmp_path / "none", rows(tmp_path, GOOD, BAD_ROW))
    assert of_check(path) == of_run(path)
    assert len(of_check(path)) == 2


def test_a_recipe_takes_the_overrides_of_train(tmp_path: Path, model: Path) -> None:
    path = str(recipe_of(tmp_path, model, rows(tmp_path, GOOD, LONG)))
    assert run_command("data", "check", path).exit_code == 0
    overrides = ("data.max_length=60", "data.length_policy=error")
    done = run_command("data", "check", path, *overrides)
    assert done.exit_code == 2
    assert "row 2, field 'prompt'" in done.output
    done = run_command("data", "check", path, "data.max_lenght=60", "train.debug")
    assert done.exit_code == 2
    assert "did you mean 'max_length'?" in done.output
    assert "expected section.key=value" in done.output
    done = run_command("data", "check", path, str(tmp_path / "rows.jsonl"))
    assert (done.exit_code, "be combined with other sources" in done.output) == (2, True)


def test_parts_that_a_model_lacks_are_problems_of_both(tmp_path: Path, model: Path) -> None:
    path = recipe_of(tmp_path, model, rows(tmp_path, GOOD))
    recipe = load_recipe(path, ["model.freeze=[towr]", "train.learning_rates.projektor=0.1"])
    args = training_run.run_settings(recipe).args
    family, _ = setup.load_family_and_adapter(str(model), args)
    with pytest.raises(RecipeError) as refused:
        check_part_names(args, None, family)
    problems = refused.value.problems
    assert [problem.where for problem in problems] == [
        "train.learning_rates.projektor",
        "model.freeze",
    ]
    with pytest.raises(RecipeError) as error:
        setup.prepare_run(str(model), args, train_dataset=[])
    assert [problem.where for problem in error.value.problems] == [p.where for p in problems]


def test_a_refused_row_of_a_run_is_the_error_of_a_run(tmp_path: Path, model: Path) -> None:
    recipe = load_recipe(recipe_of(tmp_path, model, rows(tmp_path, BAD_ROW, GOOD, REFUSED)))
    with pytest.raises(DataError) as error:
        training_run.trainer_for(recipe)
    assert len(error.value.problems) == 2

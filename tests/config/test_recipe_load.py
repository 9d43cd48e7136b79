"""Loading a recipe: overrides, paths, former keys, and all problems reported together."""

import logging
from pathlib import Path

import pytest

from unidpo_mm.config import Recipe, aliases, load_recipe
from unidpo_mm.errors import Problem, RecipeError

GOOD = """\
model: {name_or_path: org/model}
data:
  sources:
    - {path: org/pairs}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(text)
    return path


def problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(folder, text), overrides)
    return [str(problem) for problem in caught.value.problems]


def test_a_short_recipe_has_the_defaults(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, GOOD))
    assert recipe.model.name_or_path == "org/model"
    assert recipe.loss.name == "uni_dpo"
    assert recipe.loss.parameters == {}
    assert recipe.train.reference == "auto"
    assert recipe.data.sources[0].loss == {}
    with pytest.raises(ValueError, match="frozen"):
        recipe.data.seed = 1


def test_other_keys_of_loss_and_train_are_kept(tmp_path: Path):
    text = GOOD + "loss: {name: dpo, beta: 0.1}\ntrain: {learning_rate: 1e-6, reference: none}\n"
    recipe = load_recipe(write(tmp_path, text))
    assert recipe.loss.parameters == {"beta": 0.1}
    assert recipe.train.arguments == {"learning_rate": 1e-6}
    assert recipe.train.reference == "none"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian: {}", "line 5, key 'trian': unknown key 'trian', did you mean 'train'? Choose"),
        (
            "run: {resume: 3}",
            "line 5, key 'run.resume': found the number 3. Put it in quotes: '3'",
        ),
        ("run: {resume: true}", "found true. Use auto"),
        ("run: {resume: null}", "found null. Use text"),
        ("run: {seed: 3}", "unknown key 'seed'. Move it to 'data'"),
        ("run: fast", "key 'run': found the text 'fast'. Use a section with keys"),
        ("loss: {name: []}", "found the list []. Use text"),
        ("train: {eval_generations: 2.5}", "found the number 2.5. Use a whole number"),
        ("train: {eval_generations: '2'}", "found the text '2'. Use a whole number"),
        ("train: {eval_generations: true}", "found true. Use a whole number"),
        ("train: {eval_generations: None}", "found the text 'None'. Use null for no value"),
        (
            "train: {reference: frozen}",
            "found the text 'frozen', did you mean 'frozen_copy'? Use",
        ),
        ("train: {learning_rates: {a: -1}}", "key 'train.learning_rates.a': found the number -1"),
        ("train: {learning_rates: 1}", "found the number 1. Use a section with keys"),
    ],
)
def test_each_problem_has_a_place_a_message_and_a_remedy(tmp_path: Path, line: str, message: str):
    assert any(message in problem for problem in problems(tmp_path, GOOD + line + "\n"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.trust_remote_code=yes", "found the text 'yes'. Use true"),
        ("model.trust_remote_code=off", "found the text 'off'. Use false"),
        ("model.lora.targets=5", "found the number 5. Use text, or a list"),
        ("model.lora.targets=[5]", "key 'model.lora.targets.0': found the number 5"),
        ("model.lora.dropout=1", "found the number 1. Use a value less than 1"),
        ("model.name_or_path=null", "key 'model.name_or_path': found null. Use text"),
        ("data.score_scale=[5, 1]", "the lower end 5.0 of a scale must be below its upper end"),
        ("data.score_scale=[5]", "found the list [5]. Use two numbers"),
        ("data.score_scale=[0, 5, 9]", "found the list [0, 5, 9]. Use two numbers"),
        (
            "data.score_scale=[0, .inf]",
            "key 'data.score_scale.1': found .inf, which is not a finite number",
        ),
        ("model.name_or_path=''", "found the text ''. Use some text"),
        ("data.sources=[]", "key 'data.sources': found the list []. Use a list of at least 1"),
        (
            "data.sources.0.loss.sigma=1",
            "unknown key 'sigma', did you mean 'gamma'? Choose one of the keys of 'loss'",
        ),
        ("data.sources.0.loss.beta=a", "found the text 'a'. Use a number"),
        ("data.sources.0.loss.tau_good=med", "did you mean 'median'? Use median, or a number"),
        (
            "data.sources.0.images=3",
            "override 'data.sources.0.images=3', key 'data.sources.0.images'",
        ),
        ("data.sources.2.path=x", "data.sources has 1 item, so there is no item '2'"),
        ("data.0=x", "data is a section, not a list"),
        ("model.name_or_path.x=1", "model.name_or_path is a single value and has no 'x'"),
        ("data.seed", "expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("data..seed=3", "expected section.key=value"),
        ("data.seed=[1", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_quoted(tmp_path: Path, override: str, message: str):
    texts = problems(tmp_path, GOOD, override)
    assert any(message in text for text in texts), texts
    assert all(f"override '{override}'" in text for text in texts)


def test_overrides_change_add_and_clear(tmp_path: Path):
    recipe = load_recipe(
        write(tmp_path, GOOD + "loss: {name: dpo, beta: 1}\n"),
        [
            "train.learning_rate=1e-6",
            "data.sources.0.path=org/others",
            "data.sources.1.path=org/more",
            "data.eval_sources.0.path=org/held_out",
            "model.lora.r=8",
            "model.freeze=[]",
            "data.max_length=null",
            "loss.name=simpo",
            "train.run_name=a=b",
        ],
    )
    assert recipe.train.arguments == {"learning_rate": 1e-6, "run_name": "a=b"}
    assert [source.path for source in recipe.data.sources] == ["org/others", "org/more"]
    assert recipe.data.eval_sources[0].path == "org/held_out"
    assert recipe.model.lora is not None
    assert recipe.model.lora.r == 8
    assert recipe.model.freeze == ()
    assert recipe.loss.name == "simpo"
    assert recipe.loss.parameters == {"beta": 1}


def test_a_recipe_can_consist_of_overrides(tmp_path: Path):
    recipe = load_recipe(write(tmp_path, ""), ["model.name_or_path=a/b", "data.sources.0.path=c/d"])
    assert recipe.data.sources[0].path == "c/d"


def test_all_problems_are_reported_together(tmp_path: Path):
    text = "model: {dtype: fp16}\ndata: {sources: [{imges: x}], seed: -1, seed: 2}\n"

    def check(recipe: Recipe) -> list[Problem]:
        return [
            Problem("loss.name", "found by a check", "Change it"),
            Problem("model.name_or_path", "found in a placeholder", "Never printed"),
            Problem("data.sources.0.path", "found in a placeholder", "Never printed"),
            Problem("elsewhere", "found by a check", "Change it"),
        ]

    with pytest.raises(RecipeError) as caught:
        load_recipe(write(tmp_path, text), checks=[check])
    where = {problem.where.replace("r.yaml ", "") for problem in caught.value.problems}
    assert where == {
        "line 1, key 'model.name_or_path'",
        "line 1, key 'model.dtype'",
        "line 2, key 'data.sources.0.path'",
        "line 2, key 'data.sources.0.imges'",
        "line 2, key 'data.seed'",
        "r.yaml, key 'loss.name'",
        "elsewhere",
    }
    assert "(8 problems)" in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n", "3\n", "model\n"])
def test_a_file_without_sections_is_refused(tmp_path: Path, text: str):
    assert "the file is not a mapping with sections" in problems(tmp_path, text)[0]


def test_missing_sections_are_named(tmp_path: Path):
    texts = problems(tmp_path, "")
    assert any("'model' is missing. Add it: the model to train" in text for text in texts)
    assert any("'data' is missing. Add it: the training data" in text for text in texts)


def test_an_unreadable_file_is_named(tmp_path: Path):
    with pytest.raises(RecipeError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not valid UTF-8"):
        load_recipe(tmp_path / "r.yaml")


def test_paths_start_at_the_recipe_then_at_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    beside, here = tmp_path / "recipes", tmp_path / "here"
    for folder in (beside, here):
        (folder / "both").mkdir(parents=True)
    (here / "only_here.jsonl").touch()
    monkeypatch.chdir(here)
    text = "model: {name_or_path: both}\ndata: {sources: [{path: only_here.jsonl, images: absent}]}"
    recipe = load_recipe(write(beside, text), ["train.output_dir=both"])
    assert recipe.model.name_or_path == str(beside / "both")
    assert recipe.data.sources[0].path == str(here / "only_here.jsonl")
    assert recipe.data.sources[0].images == "absent"
    assert recipe.train.output_dir == "both"


FORMER = GOOD + "  pictures: {max_pixels: 100, max_skipped_fraction: 0.5}\n"


@pytest.fixture
def warnings_again() -> None:
    aliases.warn_once.cache_clear()


@pytest.mark.usefixtures("warnings_again")
def test_a_former_key_is_read_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path, FORMER)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            recipe = load_recipe(path, ["data.pictures.max_pixels=200"])
    assert recipe.data.images.max_pixels == 200
    assert recipe.data.images.max_skipped_fraction == 0.5
    assert caplog.messages == [
        "r.yaml line 5, key 'data.pictures': it is called 'data.images' now; the old name is "
        "deprecated"
    ]


@pytest.mark.usefixtures("warnings_again")
def test_a_former_key_in_an_override_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        recipe = load_recipe(write(tmp_path, GOOD), ["data.pictures.max_pixels=200"])
    assert recipe.data.images.max_pixels == 200
    (message,) = caplog.messages
    assert message.startswith("override 'data.pictures.max_pixels=200', key 'data.pictures': ")


@pytest.mark.usefixtures("warnings_again")
def test_mistakes_below_a_former_key_keep_their_line(tmp_path: Path):
    text = GOOD + "  pictures:\n    max_pixels: many\n    max_pixel: 3\n"
    number, name = problems(tmp_path, text)
    assert number.startswith("r.yaml line 6, key 'data.images.max_pixels': found the text 'many'")
    assert name.startswith("r.yaml line 7, key 'data.images.max_pixel': unknown key 'max_pixel'")
    (problem,) = problems(tmp_path, GOOD, "data.pictures.max_pixels=0")
    assert "override 'data.pictures.max_pixels=0', key 'data.images.max_pixels'" in problem
    (problem,) = problems(tmp_path, GOOD + "  pictures: 3\n")
    assert problem.startswith("r.yaml line 5, key 'data.images': found the number 3")


@pytest.mark.usefixtures("warnings_again")
def test_former_sizes_in_pixels_keep_their_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    text = GOOD.replace("model}", "model, image_max_pixels: 5000, image_min_pixels: null}")
    with caplog.at_level(logging.WARNING):
        recipe = load_recipe(write(tmp_path, text))
    assert (recipe.model.image_min_size, recipe.model.image_max_size) == (None, "5000 pixels")
    assert any("it is called 'model.image_max_size' now" in text for text in caplog.messages)
    (problem,) = problems(tmp_path, GOOD, "model.image_max_pixels=0")
    assert "key 'model.image_max_size'" in problem
    assert "number, 1 or more" in problem


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        (FORMER + "  images: {}\n", ()),
        (FORMER, ("data.images.max_skipped_fraction=0.1",)),
    ],
)
@pytest.mark.usefixtures("warnings_again")
def test_a_key_with_both_names_is_an_error(tmp_path: Path, text: str, overrides: tuple[str, ...]):
    (problem,) = problems(tmp_path, text, *overrides)
    assert problem == (
        "r.yaml line 5, key 'data.pictures': it is the former name of 'data.images', which is set "
        "as well. Move its values to 'data.images' and remove it."
    )

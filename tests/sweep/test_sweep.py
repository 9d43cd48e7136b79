"""Sweeps: what is run, what is not run again, what the table says, what is refused."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.sweep.command import run_and_show
from unidpo_mm.sweep.plan import Sweep, check_arms, read_sweep
from unidpo_mm.sweep.run import run_sweep
from unidpo_mm.sweep.runner import Figure, load_runner
from unidpo_mm.sweep.table import as_markdown, cell
from unidpo_mm.training.recipe_checks import check_loss, check_train

RECIPE = """
model: {name_or_path: MODEL, dtype: float32}
data:
  eval_fraction: 0.25
  sources: [{path: rows.jsonl}]
loss: {name: uni_dpo, tau_good: median}
train:
  output_dir: out
  max_steps: 2
  learning_rate: 1.0e-2
  eval_generations: 0
  save_steps: 1
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""

SWEEP = """
recipe: recipe.yaml
seeds: [0, 1]
arms:
  full: []
  no w_qual: [loss.quality_weight=none]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def checked(path: Path) -> Sweep:
    sweep = read_sweep(path)
    check_arms(sweep, (check_loss, check_train))
    return sweep


class Recorder:
    """A runner that only counts; its value is ten times the seed plus the number of overrides."""

    figures: Mapping[str, Figure] = {"value": Figure(title="value")}
    start_title = "before"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.fail_at: int | None = None

    def check(self, recipe: Any) -> list[Problem]:
        return []

    def prepare(self, folder: Path, seed: int) -> int:
        return seed

    def start_values(self, start: int) -> Mapping[str, float]:
        return {"value": float(start)}

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], folder: Path
    ) -> Mapping[str, float]:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((start, tuple(overrides)))
        return {"value": 10.0 * start + len(overrides)}


def test_every_arm_runs_once_with_every_seed(folder: Path) -> None:
    runner = Recorder()
    results = run_sweep(read_sweep(folder / "sweep.yaml"), runner, folder / "out")
    assert runner.calls == [
        (seed, overrides) for seed in (0, 1) for overrides in ((), ("loss.quality_weight=none",))
    ]
    assert results == {
        "before": {"value": [0.0, 1.0]},
        "full": {"value": [0.0, 10.0]},
        "no w_qual": {"value": [1.0, 11.0]},
    }


def test_an_interrupted_sweep_goes_on_where_it_stopped(folder: Path) -> None:
    plan, runner = read_sweep(folder / "sweep.yaml"), Recorder()
    runner.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        run_sweep(plan, runner, folder / "out")
    again = Recorder()
    results = run_sweep(plan, again, folder / "out")
    assert again.calls == [(1, ("loss.quality_weight=none",))]
    assert results["no w_qual"] == {"value": [1.0, 11.0]}
    untouched = Recorder()
    assert run_sweep(plan, untouched, folder / "out") == results
    assert untouched.calls == []


def test_what_changed_since_is_run_again(folder: Path) -> None:
    run_sweep(read_sweep(folder / "sweep.yaml"), Recorder(), folder / "out")
    changed = SWEEP.replace("quality_weight=none", "quality_weight=permuted")
    (folder / "sweep.yaml").write_text(changed)
    runner = Recorder()
    run_sweep(read_sweep(folder / "sweep.yaml"), runner, folder / "out")
    assert {overrides for _, overrides in runner.calls} == {("loss.quality_weight=permuted",)}
    (folder / "recipe.yaml").write_text(RECIPE + "# other\n")
    runner = Recorder()
    run_sweep(read_sweep(folder / "sweep.yaml"), runner, folder / "out")
    assert len(runner.calls) == 4
    (folder / "rows.jsonl").write_text("{}")
    (folder / "recipe.yaml").write_text(RECIPE)
    for change in (Recorder(), Recorder(split="other"), Recorder(split="another")):
        run_sweep(read_sweep(folder / "sweep.yaml"), change, folder / "out")
        assert len(change.calls) == 4


def test_changed_data_are_run_again(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("{}")
    run_sweep(read_sweep(folder / "sweep.yaml"), Recorder(), folder / "out")
    (folder / "rows.jsonl").write_text("{ }")
    runner = Recorder()
    run_sweep(read_sweep(folder / "sweep.yaml"), runner, folder / "out")
    assert len(runner.calls) == 4


@pytest.mark.parametrize("text", ["", "[1]", '{"plan": 1}'])
def test_a_result_that_is_not_in_one_piece_is_run_again(folder: Path, text: str) -> None:
    run_sweep(read_sweep(folder / "sweep.yaml"), Recorder(), folder / "out")
    (folder / "out" / "seed-0" / "arms" / "full.json").write_text(text)
    runner = Recorder()
    run_sweep(read_sweep(folder / "sweep.yaml"), runner, folder / "out")
    assert runner.calls == [(0, ())]


def test_only_the_first_of_several_processes_writes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    results = run_sweep(read_sweep(folder / "sweep.yaml"), Recorder(), folder / "out")
    assert results["full"] == {"value": [0.0, 10.0]}
    assert not (folder / "out").exists()


def test_arms_whose_names_look_alike_as_files_stay_apart(folder: Path) -> None:
    arms = {"a b": (), "a/b": ("loss.beta=1.0",), "a_b": ("loss.beta=1.0", "loss.eta=1.0")}
    plan = Sweep(recipe=str(folder / "recipe.yaml"), seeds=(0,), arms=arms)
    results = run_sweep(plan, Recorder(), folder / "out")
    assert [results[name]["value"] for name in arms] == [[0.0], [1.0], [2.0]]


def test_a_cell_is_the_mean_and_its_standard_error() -> None:
    """Of 0.5, 0.6, 0.7: deviation 0.1, divided by sqrt 3."""
    rate, plain = Figure(title="", percent=True), Figure(title="")
    assert cell([0.5, 0.6, 0.7], rate) == f"60 ± {100 * 0.1 / math.sqrt(3):.0f}"
    assert cell([1.0, 2.0], plain) == "1.50 ± 0.50"
    assert cell([0.5], rate) == "50"
    assert cell([], rate) == ""


def test_markdown_has_a_row_per_arm_and_only_figures_that_exist() -> None:
    figures = {"a": Figure(title="first"), "b": Figure(title="second"), "c": Figure(title="third")}
    text = as_markdown({"one": {"a": [1.0]}, "two": {"c": [2.0]}}, figures)
    assert text.splitlines() == [
        "|  | first | third |",
        "| --- | ---: | ---: |",
        "| one | 1.00 |  |",
        "| two |  | 2.00 |",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP.replace("seeds: [0, 1]", "seeds: []"), "sweep.yaml line 3, key 'seeds'"),
        (SWEEP + "  x: loss.beta=1\n", "sweep.yaml line 7, key 'arms.x'"),
        (SWEEP + "typo: 1\n", "key 'typo'"),
        (SWEEP.replace("[loss.quality_weight=none]", "[loss.qualty=1]"), "'qualty'"),
        (SWEEP.replace("recipe.yaml", "nowhere.yaml"), "nowhere.yaml"),
        (SWEEP.replace("[0, 1]", "[0, 0]"), "a seed is named twice"),
        (SWEEP.replace("[0, 1]", "[8589934592]"), "less than"),
        (SWEEP + "  Full: []\n", "the same name but for capitals"),
        (SWEEP + "  a | b: []\n", "pattern"),
        (SWEEP + "  other: [train.seed=7]\n", "the sweep sets this key itself"),
        (SWEEP + "  other: [train.output_dir=x]\n", "the sweep sets this key itself"),
    ],
    ids=[
        "no seed",
        "arm is no list",
        "unknown key",
        "unknown parameter",
        "no recipe",
        "seed twice",
        "seed too large",
        "arm twice",
        "arm with a bar",
        "own seed",
        "own folder",
    ],
)
def test_a_mistake_is_named_before_anything_runs(folder: Path, text: str, message: str) -> None:
    (folder / "sweep.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        checked(folder / "sweep.yaml")


def test_mistakes_of_all_arms_are_told_at_once(folder: Path) -> None:
    (folder / "sweep.yaml").write_text(SWEEP + "  a: [loss.beta=-1.0]\n  b: [train.typo=1]\n")
    with pytest.raises(RecipeError) as caught:
        checked(folder / "sweep.yaml")
    assert "arm 'a'" in str(caught.value)
    assert "arm 'b'" in str(caught.value)


def test_seeds_of_the_command_line_are_checked(folder: Path) -> None:
    with pytest.raises(RecipeError, match=r"--seeds: found '0;1'"):
        run_and_show(folder / "sweep.yaml", folder / "out", "0;1", runner=Recorder())


def test_an_unknown_runner_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(RecipeError, match=r"no runner 'dmo', did you mean 'demo'"):
        load_runner("dmo")


def test_the_recipe_runner_trains_and_evaluates(
    folder: Path, checkpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPE.replace("MODEL", str(checkpoint("llama")))
    (folder / "recipe.yaml").write_text(recipe)
    rows = [
        {
            "prompt": f"What is {number}?",
            "chosen": "A red square",
            "rejected": "Two circles",
            "score_chosen": 4.0,
            "score_rejected": 3.0,
        }
        for number in range(8)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_and_show(folder / "sweep.yaml", folder / "out")
    table = (folder / "out" / "table.md").read_text()
    assert "| no w_qual |" in table
    assert "reward accuracy %" in table
    assert "no w_qual" in capsys.readouterr().out
    losses = [values_of(folder, seed) for seed in (0, 1)]
    assert losses[0] != losses[1]  # the seed reaches split, order and model
    # a changed recipe trains anew, though the old checkpoints lie there
    (folder / "recipe.yaml").write_text(recipe.replace("1.0e-2", "3.0e-1"))
    run_and_show(folder / "sweep.yaml", folder / "out")
    assert values_of(folder, 0) != losses[0]


def values_of(folder: Path, seed: int) -> dict[str, float]:
    path = folder / "out" / f"seed-{seed}" / "arms" / "full.json"
    values: dict[str, float] = json.loads(path.read_text())["values"]
    return values


def test_the_recipe_runner_says_first_what_it_would_find_out_late(
    folder: Path, checkpoint: Any
) -> None:
    recipe = RECIPE.replace("MODEL", str(checkpoint("llama")))
    (folder / "recipe.yaml").write_text(recipe.replace("eval_fraction: 0.25", "seed: 1"))
    with pytest.raises(RecipeError) as caught:
        run_and_show(folder / "sweep.yaml", folder / "out")
    assert "nothing is held out" in str(caught.value)
    assert "rows.jsonl" in str(caught.value)


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "out").write_text("")
    with pytest.raises(RecipeError, match=r"--out: .* is a file"):
        run_and_show(folder / "sweep.yaml", folder / "out", runner=Recorder())

"""Sweeps: which runs are repeated, the table, dry runs and errors."""

import gc
import json
import math
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.sweep.command import run_and_show
from unidpo_mm.sweep.plan import Sweep, check_arms, read_sweep
from unidpo_mm.sweep.run import run_sweep
from unidpo_mm.sweep.runner import Metric, load_runner
from unidpo_mm.sweep.table import as_markdown, cell

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
def directory(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path


def checked(path: Path) -> Sweep:
    sweep = read_sweep(path)
    check_arms(sweep, (check_loss, check_train))
    return sweep


class Recorder:
    """A runner that records its calls; its value is 10 * seed + number of overrides."""

    metrics: Mapping[str, Metric] = {"value": Metric(title="value")}
    start_title = "before"

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.calls: list[tuple[int, tuple[str, ...]]] = []
        self.fail_at: int | None = None

    def check(self, recipe: Any) -> list[Problem]:
        return []

    def prepare(self, directory: Path, seed: int) -> int:
        return seed

    def start_values(self, start: int) -> Mapping[str, float]:
        return {"value": float(start)}

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], directory: Path
    ) -> Mapping[str, float]:
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.calls.append((start, tuple(overrides)))
        return {"value": 10.0 * start + len(overrides)}


class Cycle:
    """An object that only the garbage collector frees, as a trainer."""

    def __init__(self) -> None:
        self.itself = self


class Leaky(Recorder):
    """A runner whose runs leave a cycle; records how many of earlier runs are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[weakref.ref[Cycle]] = []
        self.alive: list[int] = []

    def run(
        self, start: int, recipe: Path, overrides: Sequence[str], directory: Path
    ) -> Mapping[str, float]:
        self.alive.append(sum(item() is not None for item in self.left))
        self.left.append(weakref.ref(Cycle()))
        return super().run(start, recipe, overrides, directory)


def test_a_run_is_freed_before_the_next_one(directory: Path) -> None:
    runner = Leaky()
    gc.disable()
    try:
        run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    finally:
        gc.enable()
    assert runner.alive == [0, 0, 0, 0]


def test_every_arm_is_run_with_every_seed(directory: Path) -> None:
    runner = Recorder()
    results = run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    assert runner.calls == [
        (seed, overrides) for seed in (0, 1) for overrides in ((), ("loss.quality_weight=none",))
    ]
    assert results == {
        "before": {"value": [0.0, 1.0]},
        "full": {"value": [0.0, 10.0]},
        "no w_qual": {"value": [1.0, 11.0]},
    }


def test_interrupted_sweep_resumes(directory: Path) -> None:
    sweep, runner = read_sweep(directory / "sweep.yaml"), Recorder()
    runner.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, runner, directory / "out")
    again = Recorder()
    results = run_sweep(sweep, again, directory / "out")
    assert again.calls == [(1, ("loss.quality_weight=none",))]
    assert results["no w_qual"] == {"value": [1.0, 11.0]}
    untouched = Recorder()
    assert run_sweep(sweep, untouched, directory / "out") == results
    assert untouched.calls == []


def test_changed_runs_are_repeated(directory: Path) -> None:
    run_sweep(read_sweep(directory / "sweep.yaml"), Recorder(), directory / "out")
    changed = SWEEP.replace("quality_weight=none", "quality_weight=permuted")
    (directory / "sweep.yaml").write_text(changed)
    runner = Recorder()
    run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    assert {overrides for _, overrides in runner.calls} == {("loss.quality_weight=permuted",)}
    (directory / "recipe.yaml").write_text(RECIPE + "# other\n")
    runner = Recorder()
    run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    assert len(runner.calls) == 4
    (directory / "rows.jsonl").write_text("{}")
    (directory / "recipe.yaml").write_text(RECIPE)
    for change in (Recorder(), Recorder(split="other"), Recorder(split="another")):
        run_sweep(read_sweep(directory / "sweep.yaml"), change, directory / "out")
        assert len(change.calls) == 4


def test_runs_with_changed_data_are_repeated(directory: Path) -> None:
    (directory / "rows.jsonl").write_text("{}")
    run_sweep(read_sweep(directory / "sweep.yaml"), Recorder(), directory / "out")
    (directory / "rows.jsonl").write_text("{ }")
    runner = Recorder()
    run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    assert len(runner.calls) == 4


@pytest.mark.parametrize("text", ["", "[1]", '{"plan": 1}'])
def test_runs_with_incomplete_results_are_repeated(directory: Path, text: str) -> None:
    run_sweep(read_sweep(directory / "sweep.yaml"), Recorder(), directory / "out")
    (directory / "out" / "seed-0" / "arms" / "full.json").write_text(text)
    runner = Recorder()
    run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    assert runner.calls == [(0, ())]


def test_only_the_first_process_writes(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    results = run_sweep(read_sweep(directory / "sweep.yaml"), Recorder(), directory / "out")
    assert results["full"] == {"value": [0.0, 10.0]}
    assert not (directory / "out").exists()


def test_arms_with_similar_file_names_are_distinct(directory: Path) -> None:
    arms = {"a b": (), "a/b": ("loss.beta=1.0",), "a_b": ("loss.beta=1.0", "loss.eta=1.0")}
    sweep = Sweep(recipe=str(directory / "recipe.yaml"), seeds=(0,), arms=arms)
    results = run_sweep(sweep, Recorder(), directory / "out")
    assert [results[name]["value"] for name in arms] == [[0.0], [1.0], [2.0]]


def test_cells_have_mean_and_standard_error() -> None:
    """The standard deviation of 0.5, 0.6, 0.7 is 0.1; the standard error divides it by sqrt(3)."""
    rate, plain = Metric(title="", percent=True), Metric(title="")
    assert cell([0.5, 0.6, 0.7], rate) == f"60 ± {100 * 0.1 / math.sqrt(3):.0f}"
    assert cell([1.0, 2.0], plain) == "1.50 ± 0.50"
    assert cell([0.5], rate) == "50"
    assert cell([], rate) == ""


def test_markdown_has_a_row_per_arm_and_only_existing_metrics() -> None:
    metrics = {"a": Metric(title="first"), "b": Metric(title="second"), "c": Metric(title="third")}
    text = as_markdown({"one": {"a": [1.0]}, "two": {"c": [2.0]}}, metrics)
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
        (SWEEP.replace("[0, 1]", "[0, 0]"), "duplicate seed"),
        (SWEEP.replace("[0, 1]", "[8589934592]"), "less than"),
        (SWEEP + "  Full: []\n", "differ only in case"),
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
        "seed",
        "output directory",
    ],
)
def test_mistakes_are_reported_before_a_run(directory: Path, text: str, message: str) -> None:
    (directory / "sweep.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        checked(directory / "sweep.yaml")


def test_mistakes_of_all_arms_are_reported_at_once(directory: Path) -> None:
    (directory / "sweep.yaml").write_text(SWEEP + "  a: [loss.beta=-1.0]\n  b: [train.typo=1]\n")
    with pytest.raises(RecipeError) as caught:
        checked(directory / "sweep.yaml")
    assert "arm 'a'" in str(caught.value)
    assert "arm 'b'" in str(caught.value)


def test_seeds_of_the_command_line_are_checked(directory: Path) -> None:
    with pytest.raises(RecipeError, match=r"--seeds: invalid seeds '0;1'"):
        run_and_show(directory / "sweep.yaml", directory / "out", "0;1", runner=Recorder())


def test_unknown_runners_are_errors_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match=r"no runner 'dmo', did you mean 'demo'"):
        load_runner("dmo")


def test_recipe_runner_trains_and_evaluates(
    directory: Path, checkpoint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPE.replace("MODEL", str(checkpoint("llama")))
    (directory / "recipe.yaml").write_text(recipe)
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
    (directory / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_and_show(directory / "sweep.yaml", directory / "out")
    runs = (directory / "out" / "runs.csv").read_text().splitlines()
    assert runs[0].startswith("seed,arm,")
    assert len(runs) == 1 + 2 * 2
    table = (directory / "out" / "table.md").read_text()
    assert "| no w_qual |" in table
    assert "reward accuracy %" in table
    assert "no w_qual" in capsys.readouterr().out
    losses = [values_of(directory, seed) for seed in (0, 1)]
    assert losses[0] != losses[1]  # the seed changes split, order and model
    # a changed recipe is trained from scratch despite the old checkpoints
    (directory / "recipe.yaml").write_text(recipe.replace("1.0e-2", "3.0e-1"))
    run_and_show(directory / "sweep.yaml", directory / "out")
    assert values_of(directory, 0) != losses[0]


def values_of(directory: Path, seed: int) -> dict[str, float]:
    path = directory / "out" / f"seed-{seed}" / "arms" / "full.json"
    values: dict[str, float] = json.loads(path.read_text())["values"]
    return values


def test_recipe_runner_reports_problems_of_a_run_before_it_starts(
    directory: Path, checkpoint: Any
) -> None:
    recipe = RECIPE.replace("MODEL", str(checkpoint("llama")))
    (directory / "recipe.yaml").write_text(recipe.replace("eval_fraction: 0.25", "seed: 1"))
    with pytest.raises(RecipeError) as caught:
        run_and_show(directory / "sweep.yaml", directory / "out")
    assert "no rows are held out" in str(caught.value)
    assert "rows.jsonl" in str(caught.value)


def test_output_must_not_be_a_file(directory: Path) -> None:
    (directory / "out").write_text("")
    with pytest.raises(RecipeError, match=r"--output: .* is a file"):
        run_and_show(directory / "sweep.yaml", directory / "out", runner=Recorder())


def test_dry_run_lists_finished_and_missing_runs(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = Recorder()
    runner.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        run_sweep(read_sweep(directory / "sweep.yaml"), runner, directory / "out")
    run_and_show(directory / "sweep.yaml", directory / "out", runner=runner, dry_run=True)
    assert capsys.readouterr().out.splitlines() == [
        "seed 0, full: finished",
        "seed 0, no w_qual: to run",
        "seed 1, full: to run",
        "seed 1, no w_qual: to run",
    ]
    assert len(runner.calls) == 1
    assert not (directory / "out" / "table.md").exists()


FACTORS = """
recipe: recipe.yaml
seeds: [0]
factors:
  rate: {slow: [train.learning_rate=1.0e-3], fast: [train.learning_rate=1.0e-2]}
  loss: {uni: [], dpo: [loss.name=dpo, loss.beta=0.2]}
"""


def test_factors_have_an_arm_for_each_combination(directory: Path) -> None:
    (directory / "sweep.yaml").write_text(FACTORS)
    sweep = checked(directory / "sweep.yaml")
    assert sweep.arms == {
        "slow, uni": ("train.learning_rate=1.0e-3",),
        "slow, dpo": ("train.learning_rate=1.0e-3", "loss.name=dpo", "loss.beta=0.2"),
        "fast, uni": ("train.learning_rate=1.0e-2",),
        "fast, dpo": ("train.learning_rate=1.0e-2", "loss.name=dpo", "loss.beta=0.2"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + FACTORS.partition("seeds: [0]\n")[2], "set arms, or factors"),
        ("recipe: recipe.yaml\nseeds: [0]\n", "set arms, or factors"),
        ("recipe: recipe.yaml\nseeds: [0]\nfactors: {rate: {}}\n", "'rate' has no level"),
        (
            "recipe: recipe.yaml\nseeds: [0]\n"
            "factors: {x: {'a, b': [], a: []}, y: {c: [], 'b, c': []}}\n",
            "two combinations of levels have the same name",
        ),
        (
            "recipe: recipe.yaml\nseeds: [0]\n"
            "factors: {x: {a: [loss.beta=1.0]}, y: {b: ['loss={name: dpo}']}}\n",
            "'x' sets loss.beta, and 'y' sets loss, so that one replaces the other",
        ),
    ],
    ids=["both", "neither", "no level", "equal names", "equal keys"],
)
def test_a_sweep_has_arms_or_factors(directory: Path, text: str, message: str) -> None:
    (directory / "sweep.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_sweep(directory / "sweep.yaml")

"""`data make --plan`: what a recipe will cost, without weights."""

import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from support.made_data import calls_of, write_made_recipe, write_rows
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.plan import plan_of
from unidpo_mm.pipelines.plan_tokens import Estimate, measure_prompts
from unidpo_mm.pipelines.prompts import read_prompts
from unidpo_mm.pipelines.run import make

PLAN_ALONE = """
import json, re, sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from unidpo_mm.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
CODE = re.compile(r"transformers\\.models\\.(?!auto\\.)\\w+\\.modeling_")
modules = [name for name in sys.modules if CODE.match(name)]
weights = [name for name in opened if name.endswith((".safetensors", ".bin"))]
print(json.dumps({"modules": modules, "weights": weights}))
"""


def plan_alone(recipe: Path) -> tuple[str, Any]:
    """Run the command in a process of its own; return its text and what it has loaded."""
    command = [sys.executable, "-c", PLAN_ALONE, "data", "make", str(recipe), "--plan"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *lines, last = result.stdout.splitlines()
    return "\n".join(lines), json.loads(last)


def write_prompts(folder: Path, count: int, side: int = 40) -> None:
    """Write prompts with an image each, whose texts differ in length."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(count):
            make_image(number % 250, (side, side)).save(folder / f"{number}.png")
            text = f"<image>Question {number}? {'Look closely. ' * (number % 9)}"
            row = {"id": f"p{number}", "prompt": text, "images": [f"{number}.png"]}
            stream.write(json.dumps(row) + "\n")


def sampling_recipe(folder: Path, model: Path, **sample: Any) -> Path:
    return write_made_recipe(
        folder,
        model={"name_or_path": str(model)},
        sample={"n": 3, "max_new_tokens": 4, "batch_size": 6, **sample},
    )


def test_no_weights_and_no_model_code_are_loaded(tmp_path: Path, checkpoint: Callable[[str], Path]):
    model = tmp_path / "model"
    model.mkdir()
    for file in checkpoint("llava").iterdir():
        if file.suffix == ".safetensors":  # reading it fails
            (model / file.name).write_bytes(b"no weights")
        else:
            (model / file.name).write_bytes(file.read_bytes())
    write_prompts(tmp_path, 4)
    text, loaded = plan_alone(sampling_recipe(tmp_path, model))
    assert loaded == {"modules": [], "weights": []}
    assert "12 judge requests" in text
    assert "at most 48" in text
    assert "words (judge.py) judges 12 responses about images without seeing them" in text


def test_measured_lengths_are_those_of_all_prompts_within_the_interval(
    tmp_path: Path, checkpoint: Callable[[str], Path]
):
    write_prompts(tmp_path, 300)
    making = load_make_recipe(sampling_recipe(tmp_path, checkpoint("llava")))
    prompts = read_prompts(making.recipe.prompts, making.recipe.sample).items
    exact, drawn = measure_prompts(making, prompts, exact=True), measure_prompts(making, prompts)
    assert exact is not None
    assert drawn is not None
    assert exact.tokens is not None
    assert drawn.tokens is not None
    assert (exact.tokens.measured, drawn.tokens.measured) == (300, 200)
    assert exact.tokens.error == 0
    assert 0 < drawn.tokens.error < exact.tokens.mean
    assert abs(drawn.tokens.mean - exact.tokens.mean) <= drawn.tokens.error
    assert measure_prompts(making, prompts[::-1]) == drawn


def test_an_interval_covers_the_mean_as_often_as_it_says():
    import random

    draw, hits = random.Random(1), 0
    population = [draw.expovariate(1 / 40) for _ in range(1000)]
    mean = sum(population) / len(population)
    for _ in range(400):
        estimate = Estimate.of(draw.sample(population, 200), len(population))
        hits += abs(estimate.mean - mean) <= estimate.error
    assert 0.91 <= hits / 400 <= 0.98


def test_an_interval_needs_two_values():
    assert Estimate.of([3.0], 1) == Estimate(3.0, 0.0, 1)
    assert math.isinf(Estimate.of([3.0], 9).error)
    assert Estimate.of([3.0], 9).total(9) == "about 27"
    assert Estimate(10, 1, 5).total(10) == "100 (95 % interval 90 to 110)"


def test_time_and_requests_after_a_pilot_agree_with_the_run(tmp_path: Path):
    texts = [[f"{'a ' * (n % 3)}{'x y' if k % 2 else 'x'}" for k in range(4)] for n in range(60)]
    write_rows(tmp_path, texts)
    making = load_make_recipe(write_made_recipe(tmp_path, {"seconds": 0.02}))
    assert plan_of(making).seconds is None
    make(making, pilot=12)
    calls_of(tmp_path)
    plan = plan_of(making)
    assert "about" in plan.sections["Disk"]["files"]
    made = make(making)
    measured = sum(stage.loading + stage.seconds for stage in made.timing.stages.values())
    assert plan.seconds == pytest.approx(measured, rel=0.25)
    calls = calls_of(tmp_path)
    assert calls == 120  # equal responses are scored once
    assert plan.requests == 240 >= calls


def test_new_tokens_are_expected_from_a_pilot_with_the_same_settings(
    tmp_path: Path, checkpoint: Callable[[str], Path]
):
    write_prompts(tmp_path, 6)
    recipe = sampling_recipe(tmp_path, checkpoint("llava"), truncated="keep")
    making = load_make_recipe(recipe)
    made = make(making, pilot=2)
    tokens = [record["new_tokens"] for record in made.responses.values()]
    expected = sum(tokens) / len(tokens) * 18
    plan = plan_of(making)
    text = plan.sections["Responses"]["new tokens"]
    assert text.startswith(f"at most 72, expected {expected:,.0f}")
    assert "2 prompts of the pilot" in text
    assert plan.seconds is not None
    other = plan_of(load_make_recipe(recipe, ["sample.temperature=0.5"]))
    assert other.sections["Responses"]["new tokens"] == "at most 72"
    assert "other settings" in other.sections["Time"]["unknown"]


def test_an_unfinished_pilot_is_named(tmp_path: Path):
    write_rows(tmp_path, [["a b", "c"]] * 4)
    making = load_make_recipe(write_made_recipe(tmp_path))
    make(making, pilot=2, until="sample")
    assert "has not finished words, pair" in plan_of(making).sections["Time"]["unknown"]


def test_tokens_of_given_responses_and_the_price_of_a_judge(
    tmp_path: Path, checkpoint: Callable[[str], Path]
):
    write_rows(tmp_path, [["a b", "c d"]] * 10)
    model = {"name_or_path": str(checkpoint("llava"))}
    making = load_make_recipe(write_made_recipe(tmp_path, model=model))
    plan = plan_of(making, price=(1000.0, 0.0))
    lengths = measure_prompts(
        making, read_prompts(making.recipe.prompts, making.recipe.sample).items
    )
    assert lengths is not None
    assert lengths.tokens is not None
    assert lengths.responses is not None
    tokens = lengths.responses.mean
    assert plan.sections["Responses"]["tokens"].startswith(f"{20 * tokens:,.0f}")
    read = round(20 * (lengths.tokens.mean + tokens + 300))
    assert f"about {read:,} tokens read" in plan.sections["Scores"]["words"]
    assert plan.sections["Scores"]["cost of all"] == f"about {read / 1000:,.2f}"


def test_prompts_without_room_for_new_tokens_are_counted(
    tmp_path: Path, checkpoint: Callable[[str], Path]
):
    write_prompts(tmp_path, 4)
    recipe = sampling_recipe(tmp_path, checkpoint("llava"), max_new_tokens=10_000_000)
    plan = plan_of(load_make_recipe(recipe))
    assert any("100.0% of the measured prompts" in warning for warning in plan.warnings)


def test_the_option_exact_reaches_the_plan(tmp_path: Path, checkpoint: Callable[[str], Path]):
    write_prompts(tmp_path, 203)
    recipe = sampling_recipe(tmp_path, checkpoint("llava"))
    outputs = []
    for options in ((), ("--exact",)):
        words = ["data", "make", str(recipe), "--plan", *options]
        outputs.append(CliRunner().invoke(build_app(words), words).output)
    assert "; 200 prompts measured" in outputs[0]
    assert "; 203 prompts measured" in outputs[1]


@pytest.mark.slow
def test_ten_thousand_prompts_with_images_are_planned_in_half_a_minute(
    tmp_path: Path, checkpoint: Callable[[str], Path]
):
    write_prompts(tmp_path, 10_000, side=56)
    recipe = sampling_recipe(tmp_path, checkpoint("llava"))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    text, loaded = plan_alone(recipe)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "10,000" in text
    assert loaded == {"modules": [], "weights": []}
    load = os.getloadavg()[0]  # other work on the machine does not count
    assert seconds < 30, f"{seconds:.1f} s of processor time, {wall:.1f} s at load {load:.1f}"

"""The data of `unidpo-mm demo --on-policy`: pairs of responses of the model, and their controls."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.commands import run_command
from unidpo_mm_quickstart.exercises import math_tasks
from unidpo_mm_quickstart.images import KINDS, Emoji, draw_canvases
from unidpo_mm_quickstart.on_policy import CONTROLS, OnPolicyRunner, make_on_policy
from unidpo_mm_quickstart.stages import Start
from unidpo_mm_quickstart.training_rows import DemoData, task_row, write_jsonl

from unidpo_mm.config.shipped import shipped_recipe
from unidpo_mm.inference.prompts import Prompt
from unidpo_mm.pipelines import sampling
from unidpo_mm.pipelines.files import sampled_id
from unidpo_mm.sweep.plan import check_arms, read_sweep

IMAGES = 16


class GuessingModel:
    """A model that names one or two kinds, and numbers near the right sum."""

    def __init__(self, making: Any) -> None:
        self.seed = making.recipe.sample.seed

    def records(self, prompts: Sequence[Prompt], numbers: range) -> list[dict[str, Any]]:
        return [
            {"id": sampled_id(prompt.id, k), "finish_reason": "stop", "new_tokens": 3}
            | {"response": self.response(prompt, random.Random(f"{self.seed}/{prompt.id}/{k}"))}
            for prompt in prompts
            for k in numbers
        ]

    @staticmethod
    def response(prompt: Prompt, draw: random.Random) -> str:
        assert prompt.row is not None
        if prompt.row.images:
            return " and ".join(draw.sample(KINDS, draw.choice([1, 2])))
        return str(draw.randint(1, 40))


@pytest.fixture(scope="module")
def start(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("demo")
    emoji = []
    for number, kind in enumerate(KINDS):
        file = folder / f"{kind}.png"
        Image.new("RGBA", (72, 72), (60 * number, 90, 200, 255)).save(file)
        emoji.append(Emoji(concept=kind, kind=kind, file=file))
    train = draw_canvases(emoji, folder / "data" / "images", IMAGES, name="train")
    data = DemoData(folder=folder / "data", train=tuple(train), test=())
    write_jsonl(data.file("math"), map(task_row, math_tasks("train", 6, seed=0, pairs=3)))
    start = Start(folder=folder, seed=0, data=data, model=checkpoint("llava"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_Model", GuessingModel)
        make_on_policy(start)
    return start


def rows(start: Start, name: str) -> list[dict[str, Any]]:
    text = (start.data.folder / name / "rows.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def scores(start: Start, name: str) -> dict[str, float]:
    text = (start.data.folder / name / "scores" / "kinds-of-8.jsonl").read_text(encoding="utf-8")
    _, *records = map(json.loads, text.splitlines())
    return {record["id"]: record["score"] for record in records}


def test_the_better_caption_names_the_kinds_of_the_image(start: Start) -> None:
    captions = {canvas.id: canvas.caption for canvas in start.data.train}
    made = rows(start, "captions")
    assert len(made) > 5
    for row in made:
        ((chosen, rejected, _),) = row["pairs"]
        assert row["responses"][chosen]["score"] - row["responses"][rejected]["score"] >= 2
        assert row["gold"] == captions[row["id"]]
        right = [r["score"] for r in row["responses"] if r["text"] == row["gold"]]
        assert set(right) <= {10.0}


def test_controls_have_the_same_responses_and_other_scores(start: Start) -> None:
    expected = scores(start, "captions")
    texts = (start.data.folder / "captions" / "responses.jsonl").read_bytes()
    for control in CONTROLS:
        folder = start.data.folder / f"captions_{control}"
        assert (folder / "responses.jsonl").read_bytes() == texts
        others = scores(start, folder.name)
        assert others.keys() == expected.keys()
        assert sum(others[name] != expected[name] for name in others) > 20
    permuted = scores(start, "captions_permuted")
    for prompt in {name.partition("#")[0] for name in permuted}:
        by_prompt = [
            Counter(value for name, value in values.items() if name.startswith(f"{prompt}#"))
            for values in (expected, permuted)
        ]
        assert by_prompt[0] == by_prompt[1]


def test_sums_are_scored_by_their_distance(start: Start) -> None:
    for row in rows(start, "sums"):
        target = int("".join(filter(lambda c: c.isdigit() or c == "-", row["gold"])))
        ordered = sorted(row["responses"], key=lambda response: -response["score"])
        distances = [abs(int(response["text"]) - target) for response in ordered]
        assert distances == sorted(distances)


def test_the_sweep_has_the_planted_pairs_and_the_controls(start: Start) -> None:
    path = shipped_recipe("quickstart/on_policy.yaml", kind="sweep")
    sweep = read_sweep(path)
    check_arms(sweep, [])
    assert list(sweep.arms) == [
        "planted pairs",
        "on-policy pairs",
        "scores permuted",
        "scores for another image",
        "SFT on the best of 8",
    ]
    used = {
        key.partition("$DATA/")[2].partition("/")[0] for keys in sweep.arms.values() for key in keys
    }
    assert used - {""} == {"captions", "sums", *(f"captions_{control}" for control in CONTROLS)}
    assert OnPolicyRunner(images=3).settings["images"] == 3


def test_both_comparisons_at_once_are_refused() -> None:
    end = run_command("demo", "--compare", "--on-policy")
    assert end.exit_code == 2
    assert "use either --compare or --on-policy" in end.output

"""The quick-start's tuned model, exported, answers held-out questions with transformers alone.

The tests need the downloaded parts.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NEW_TOKENS = 8
QUESTIONS = 4
SCRIPT = Path(__file__).parents[1] / "support" / "plain_transformers.py"


@dataclass(frozen=True)
class Demo:
    """A run of the quick-start with few rows and steps.

    Attributes:
        base: The model after the warm-up.
        tuned: The LoRA adapter that preference tuning trained.
        questions: Held-out questions with paths of images, as JSON lines.
        answers: The token ids that the tuned model answers with in this process.
    """

    base: Path
    tuned: Path
    questions: Path
    answers: list[list[int]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    from unidpo_mm_quickstart.stages import assemble, tune, warm_up
    from unidpo_mm_quickstart.training_rows import Sizes

    folder = tmp_path_factory.mktemp("demo")
    sizes = Sizes(
        train_images=64, images_with_pairs=24, math_prompts=4, text_prompts=4,
        test_images=QUESTIONS, test_image_pairs=4, test_math_pairs=2, test_text_pairs=2,
    )  # fmt: skip
    start = assemble(folder, 0, split="heldout", sizes=sizes)
    base = warm_up(start, overrides=["train.max_steps=8"])
    tune(replace(start, model=base), folder / "tuned", overrides=["train.max_steps=8"])
    questions = start.data.file("test_images")
    answers = own_answers(folder / "tuned", questions)
    return Demo(base=base, tuned=folder / "tuned", questions=questions, answers=answers)


def own_answers(model: Path, questions: Path) -> list[list[int]]:
    """Return the greedy token ids of a checkpoint, with the code that trains and evaluates."""
    from PIL import Image

    from unidpo_mm.adapter import AdapterOptions, generation_inputs
    from unidpo_mm.data.collate import collate_prompts
    from unidpo_mm.data.images import MemoryImage
    from unidpo_mm.inference.checkpoint import find_checkpoint, load_checkpoint
    from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response

    loaded = load_checkpoint(find_checkpoint(str(model)), dtype="float32", device="cpu")
    adapter = loaded.adapter(AdapterOptions())
    answers = []
    for question in map(json.loads, questions.read_text().splitlines()):
        image = MemoryImage(Image.open(questions.parent / question["image"]), question["id"])
        row = PreferenceRow(
            id=question["id"], domain="multimodal", source="test", where="test",
            messages=(Message("user", (MediaSlot("image"), question["question"])),),
            images=(image,), responses=(Response(question["caption"], None),),
        )  # fmt: skip
        prompt = collate_prompts([adapter.encode_prompt(row)], pad_token_id=adapter.pad_token_id)
        inputs: Any = generation_inputs(adapter, prompt)
        output = loaded.model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        answers.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    return answers


def plain_answers(demo: Demo, *arguments: str | Path) -> list[list[int]]:
    """Return the answers of a script in another process that imports nothing of this project."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, SCRIPT, *arguments, "--questions", demo.questions]
    done = subprocess.run(
        [*map(str, command), "--max-new-tokens", str(NEW_TOKENS)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["imported"] == []
    return result["answers"]


def exported(demo: Demo, output: Path, *options: str) -> Path:
    words = ("export", str(demo.tuned), "--output", str(output), "--dtype", "float32")
    done = run_command(*words, *options)
    assert done.exit_code == 0, done.output
    return output


def test_tuning_changed_the_answers(demo: Demo) -> None:
    """Without this, the base model would pass the tests below."""
    assert plain_answers(demo, "--model", demo.base) != demo.answers


def test_a_merged_export_gives_the_tuned_answers(demo: Demo, tmp_path: Path) -> None:
    merged = exported(demo, tmp_path / "merged", "--merge")
    assert plain_answers(demo, "--model", merged) == demo.answers


def test_an_exported_adapter_gives_the_tuned_answers(demo: Demo, tmp_path: Path) -> None:
    adapter = exported(demo, tmp_path / "adapter")
    model = ("--model", demo.base, "--processor", adapter)
    assert plain_answers(demo, *model, "--adapter", adapter) == demo.answers


def test_the_directory_of_the_run_gives_the_tuned_answers_with_peft(demo: Demo) -> None:
    model = ("--model", demo.base, "--processor", demo.tuned)
    assert plain_answers(demo, *model, "--peft", demo.tuned) == demo.answers

"""Record short fixed-seed runs, and compare another version of the code with them, to the bit.

A change of structure must not change a number. On the version before it:

    python benchmarks/fixed_seed_runs.py record FOLDER

and on the version after it, on the same machine with the same libraries:

    python benchmarks/fixed_seed_runs.py compare FOLDER

The folder holds tiny models, data and recipes, so that both versions run the same files through
the command line. Compared are the logged metrics of every step and the bytes of the final weights.
"""

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MODELS = ("llama", "llava", "qwen2_vl")
TIMES = ("runtime", "seconds_left", "per_second", "memory", "flos", "flops")
"""Parts of the names of logged numbers that differ from run to run."""

RECIPE = """
model: {name_or_path: MODEL, dtype: float32}
data:
  sources: [{path: DATA/pairs.jsonl}]
  eval_sources: [{path: DATA/held_out.jsonl}]
train:
  max_steps: 3
  per_device_train_batch_size: 3
  gradient_accumulation_steps: 2
  learning_rate: 1.0e-3
  optim: adamw_torch
  eval_strategy: steps
  eval_steps: 3
  save_steps: 3
  logging_steps: 1
  seed: 7
  report_to: none
  use_cpu: true
  disable_tqdm: true
"""

FULL = "model.freeze=[]"
LORA = "model.lora={r: 4, dropout: 0.1}"
RUNS: dict[str, tuple[str, ...]] = {
    **{
        f"{layout}, {reference}": (
            FULL,
            f"model.layout={layout}",
            f"train.reference={reference}",
        )
        for layout in ("plain", "packed", "joined")
        for reference in ("frozen_copy", "cached")
    },
    "LoRA, plain, live": (LORA, "model.layout=plain", "train.reference=lora_off"),
    "LoRA, joined, live": (LORA, "model.layout=joined", "train.reference=lora_off"),
    "LoRA, automatic": (LORA,),
    "automatic, median threshold": (FULL, "loss.tau_good=median"),
    "dpo": (FULL, "loss.name=dpo"),
    "simpo": (FULL, "loss.name=simpo"),
    "mm_dpo": (FULL, "loss.name=mm_dpo"),
    "bco": (FULL, "loss.name=bco"),
}


def main() -> int:
    """Record or compare; return the exit code."""
    if len(sys.argv) != 3 or sys.argv[1] not in ("record", "compare"):
        sys.exit(__doc__)
    folder = Path(sys.argv[2]).resolve()
    if sys.argv[1] == "record":
        prepare(folder)
        (folder / "recorded.json").write_text(json.dumps(dict(all_runs(folder)), indent=1))
        return 0
    recorded = json.loads((folder / "recorded.json").read_text())
    different = 0
    for name, result in all_runs(folder):
        problems = differences(recorded[name], result)
        different += bool(problems)
        print(f"{name:44} {'; '.join(problems) or 'equal'}")
    print(f"{len(recorded)} runs, {different} different")
    return 1 if different else 0


def prepare(folder: Path) -> None:
    """Write tiny models and data."""
    sys.path.insert(0, str(ROOT / "tests"))
    from builders import tiny_checkpoint

    for name in MODELS:
        tiny_checkpoint(folder / "models" / name, name)
        data = folder / "data" / name
        data.mkdir(parents=True)
        write_data(data, images=name != "llama")


def write_data(folder: Path, *, images: bool) -> None:
    """Write training and held-out rows: text, math and, for models that see, images."""
    from PIL import Image

    for number, color in enumerate([(200, 30, 30), (30, 30, 200), (30, 160, 60)]):
        Image.new("RGB", (40 - 4 * number, 30 + 6 * number), color).save(folder / f"{number}.png")
    for name, numbers in {"pairs": range(20), "held_out": range(100, 106)}.items():
        lines = [json.dumps(row(number, images=images)) for number in numbers]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))


def row(number: int, *, images: bool) -> dict[str, Any]:
    """Return a row with two to four scored responses, as one in three with an image."""
    texts = [
        "A red square" + " and a circle" * (number % 3),
        "Blue" + " dog" * (number % 4),
        "Nothing at all that anybody could see here",
        f"It is {number}",
    ][: 2 + number % 3]
    content: dict[str, Any] = {
        "prompt": f"What is {number} in it?",
        "responses": [
            {"text": text, "score": 4.0 - 1.1 * n + 0.1 * (number % 5)}
            for n, text in enumerate(texts)
        ],
    }
    if images and number % 3 == 0:
        content |= {"prompt": f"<image>What is {number}?", "images": [f"{number % 2}.png"]}
    elif number % 2:
        content["domain"] = "math"
    return content


def all_runs(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the result of each run."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    import torch
    import transformers  # noqa: F401 - the forked runs find it imported

    torch.set_num_threads(1)
    for model in MODELS:
        for name, keys in RUNS.items():
            yield f"{model}: {name}", run(folder, model, keys)


def run(folder: Path, model: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """Train in a forked child and return logged metrics and digests of the final weights."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        text = RECIPE.replace("MODEL", str(folder / "models" / model))
        text = text.replace("DATA", str(folder / "data" / model))
        (work / "recipe.yaml").write_text(text)
        arguments = ["train", str(work / "recipe.yaml"), f"train.output_dir={work / 'out'}", *keys]
        child = multiprocessing.get_context("fork").Process(target=call, args=(arguments, work))
        child.start()
        child.join()
        if child.exitcode:
            sys.exit(f"{model}, {keys}: exit {child.exitcode}\n{(work / 'output').read_text()}")
        return {
            "log": json.loads((work / "out/checkpoint-3/trainer_state.json").read_text())[
                "log_history"
            ],
            "weights": {
                file.name: hashlib.sha256(file.read_bytes()).hexdigest()
                for file in sorted((work / "out").glob("*.safetensors"))
            },
        }


def call(arguments: list[str], work: Path) -> None:
    """Run the command line with its output in a file and a cache of its own."""
    sys.argv = ["unidpo-mm", *arguments]
    os.environ["UNIDPO_MM_CACHE"] = str(work / "cache")
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            from unidpo_mm.cli.main import main

            main()
    finally:
        (work / "output").write_text(output.getvalue())
        shutil.rmtree(work / "cache", ignore_errors=True)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return what differs between two results of a run, as text."""
    problems = []
    if before["weights"] != after["weights"]:
        problems.append("other final weights")
    for step, (old, new) in enumerate(zip(before["log"], after["log"], strict=True)):
        for key in sorted(old.keys() | new.keys()):
            if any(part in key for part in TIMES):
                continue
            if old.get(key) != new.get(key):
                problems.append(f"log {step}: {key} {old.get(key)} -> {new.get(key)}")
    return problems


if __name__ == "__main__":
    sys.exit(main())

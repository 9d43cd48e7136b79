"""The messages of docs/troubleshooting.md, produced by the real command line.

    python tests/support/documented_messages.py

writes them into the page: a block under a comment ``<!-- message: NAME -->`` holds the message of
the situation with that name. Every situation has a directory of its own with a tiny text model,
eight pairs and a recipe.
"""

import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path[:0] = [str(Path(__file__).parents[1])]

from support.forked import Finished, run_forked
from support.forked_runs import preload

__all__ = ["BLOCK", "PAGE", "SITUATIONS", "message_of", "updated_page", "write_world"]

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BLOCK = re.compile(
    r"(<!-- message: (?P<name>[^\n]+?) -->\n```text\n)(?P<text>.*?)(?=```)", re.DOTALL
)
WIDTH = 80

RECIPE = """\
model: {name_or_path: model}
data: {sources: [{path: pairs.jsonl}]}
loss: {name: dpo}
train:
  output_dir: out
  max_steps: 3
  per_device_train_batch_size: 2
  use_cpu: true
  report_to: none
  save_steps: 1
  logging_steps: 1
  eval_generations: 0
  disable_tqdm: true
"""

LAUNCHER = (
    "WORLD_SIZE RANK LOCAL_RANK LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT ACCELERATE_USE_CPU "
    "ACCELERATE_MIXED_PRECISION ACCELERATE_USE_FSDP CUDA_VISIBLE_DEVICES HF_HOME UNIDPO_MM_CACHE "
    "OPENAI_API_KEY"
).split()

INFINITE_LOSS = '''\
"""DPO plus the logarithm of a margin, which is infinite at the start."""

import dataclasses

from unidpo_mm.authoring import implicit_rewards
from unidpo_mm.losses.dpo import LOSS as DPO


def compute(pairs, config):
    """Return the loss of each pair."""
    chosen, rejected = implicit_rewards(pairs, beta=config.beta)
    output = DPO.compute(pairs, config)
    return dataclasses.replace(output, per_unit=output.per_unit + (chosen - rejected).log())


LOSS = dataclasses.replace(DPO, name="dpo_with_log", compute=compute)
'''

STOP = '''\
"""Send SIGTERM to this process after its second step, as a scheduler does."""

import os
import signal

from transformers import TrainerCallback


class Stop(TrainerCallback):
    """Stops a run."""

    def on_step_end(self, args, state, control, **kwargs):
        """Send the signal after the second step."""
        if state.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def CALLBACK(settings):
    """Return the callback."""
    return Stop()
'''

TABLE = (
    "index\tquestion\tanswer\tcategory\n0\tIs it red?\tYes\tpopular\n1\tIs it blue?\tNo\tpopular\n"
)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """A command that ends with a message.

    Attributes:
        command: The command line without `unidpo-mm`.
        code: Its exit code.
        files: Name -> content of further files.
        env: Changes of the environment.
        earlier: A command that is run before, in the same directory; it must succeed.
        damage: A file whose content is removed after the earlier command.
        part: A pattern of the lines of the output that are documented; by default, the error.
    """

    command: str
    code: int = 2
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    earlier: str = ""
    damage: str = ""
    part: str = ""


def _rows(*rows: object) -> dict[str, str]:
    lines = [json.dumps(row) for row in rows]
    return {"rows.jsonl": "".join(f"{line}\n" for line in lines)}


UNUSABLE = (
    ("patches", "processor_config.json", '"patch_size": 14', '"patch_size": 7'),
    ("templates", "chat_template.jinja", "<image>", ""),
)
"""Name of a model with images, one of its files, a text in it, and what replaces the text."""
PAIR = {"prompt": "What?", "chosen": "Yes", "rejected": "No"}
SCORED = {**PAIR, "score_chosen": 8, "score_rejected": 2}
IMAGE = {**PAIR, "prompt": "<image>What?", "images": ["cat.png"]}
CHECK = "data check rows.jsonl"

SITUATIONS: dict[str, Situation] = {
    "unknown key": Situation(command="train recipe.yaml train.learning_rat=1e-6"),
    "several problems": Situation(
        command="train recipe.yaml train.learning_rate=-1 loss.beta=0 data.max_length=0"
    ),
    "not YAML": Situation(command="train broken.yaml", files={"broken.yaml": "model:\n\ta: 1\n"}),
    "no such recipe": Situation(command="train absent.yaml"),
    "package not installed": Situation(command="train recipe.yaml train.report_to=mlflow"),
    "missing response": Situation(
        command=CHECK, files=_rows(PAIR, {**PAIR, "rejected": None}, {**PAIR, "chosen": " "})
    ),
    "unknown columns": Situation(
        command=CHECK, files=_rows({"question": "What?", "good": "Yes", "bad": "No"})
    ),
    "not JSON": Situation(command=CHECK, files={"rows.jsonl": '{"prompt": "What?"\n'}),
    "no such data": Situation(command="data check absent.jsonl"),
    "missing image": Situation(command=CHECK, files=_rows(IMAGE)),
    "broken image": Situation(command=CHECK, files={**_rows(IMAGE), "cat.png": "no image"}),
    "too few images": Situation(command=CHECK, files=_rows({**IMAGE, "images": []})),
    "image of a URL": Situation(
        command=CHECK, files=_rows({**IMAGE, "images": ["https://example.org/cat.png"]})
    ),
    "image for a text model": Situation(
        command="train recipe.yaml data.sources.0.path=rows.jsonl",
        files=_rows(IMAGE),
    ),
    "no scores": Situation(
        command="train recipe.yaml loss.name=uni_dpo data.sources.0.path=rows.jsonl",
        files=_rows(SCORED, PAIR),
    ),
    "score outside the scale": Situation(command=f"{CHECK} --scale 0,5", files=_rows(SCORED)),
    "prompt too long": Situation(
        command="train recipe.yaml data.sources.0.path=rows.jsonl data.max_length=10",
        files=_rows({**PAIR, "prompt": "What is 1 + 1?"}),
    ),
    "no such model": Situation(command="train recipe.yaml model.name_or_path=absent"),
    "hub not reachable": Situation(command="train recipe.yaml model.name_or_path=org/absent"),
    "unknown family": Situation(command="train recipe.yaml model.adapter=lava"),
    "other patch size": Situation(command="train recipe.yaml model.name_or_path=patches"),
    "template without images": Situation(command="train recipe.yaml model.name_or_path=templates"),
    "LoRA targets": Situation(command="train recipe.yaml model.lora.targets=[absent_proj]"),
    "reference without LoRA": Situation(command="train recipe.yaml train.reference=lora_off"),
    "unknown loss": Situation(command="train recipe.yaml loss.name=unidpo"),
    "parameter of another loss": Situation(command="train recipe.yaml loss.gamma=3"),
    "parameter out of range": Situation(command="train recipe.yaml loss.beta=-1"),
    "plugin does not exist": Situation(command="train recipe.yaml loss.name=./my_loss.py"),
    "plugin with a mistake": Situation(
        command="train recipe.yaml loss.name=./my_loss.py",
        files={"my_loss.py": "LOSS = Loss()\n"},
    ),
    "plugin without an export": Situation(
        command="train recipe.yaml loss.name=./my_loss.py", files={"my_loss.py": "loss = 1\n"}
    ),
    "launcher variables": Situation(
        command="train recipe.yaml", env={"WORLD_SIZE": "2", "RANK": "0"}
    ),
    "launcher precision": Situation(
        command="train recipe.yaml", env={"ACCELERATE_MIXED_PRECISION": "bf16"}
    ),
    "output directory": Situation(
        command="train recipe.yaml train.output_dir=file", files={"file": ""}
    ),
    "changed run": Situation(
        earlier="train recipe.yaml 'run.callbacks={./stop.py: {}}'",
        files={"stop.py": STOP},
        command="train recipe.yaml loss.beta=0.5",
    ),
    "damaged checkpoint": Situation(
        earlier="train recipe.yaml 'run.callbacks={./stop.py: {}}'",
        files={"stop.py": STOP},
        damage="out/checkpoint-2/model.safetensors",
        command="train recipe.yaml",
        code=0,
        part="checkpoint-2",
    ),
    "no such checkpoint": Situation(command="train recipe.yaml run.resume=absent"),
    "not finite": Situation(
        command="train recipe.yaml loss.name=./my_loss.py",
        files={"my_loss.py": INFINITE_LOSS},
        code=3,
    ),
    "signal": Situation(
        command="train recipe.yaml 'run.callbacks={./stop.py: {}}'",
        files={"stop.py": STOP},
        code=75,
        part="SIGTERM|Saved",
    ),
    "cache directory": Situation(
        command="train recipe.yaml train.reference=cached",
        env={"UNIDPO_MM_CACHE": "file"},
        files={"file": ""},
    ),
    "cache does not exist": Situation(command="cache verify --directory absent"),
    "unknown benchmark": Situation(
        command="eval run model -b poope --data data.tsv --output results",
        files={"data.tsv": TABLE},
    ),
    "no benchmark data": Situation(
        command="eval run model -b pope --data absent.tsv --output results"
    ),
    "predictions with problems": Situation(
        command="eval score -b pope --data data.tsv --predictions p.jsonl --output r.json",
        files={"data.tsv": TABLE, "p.jsonl": '{"id": 0}\n{"id": 0, "response": "Yes"}\n'},
    ),
    "not a URL": Situation(
        command="eval run --endpoint host:8000 --served-model m -b pope --data data.tsv "
        "--output results",
        files={"data.tsv": TABLE},
    ),
    "no API key": Situation(
        command="eval run --endpoint http://127.0.0.1:9/v1 --served-model m --key MY_KEY -b pope "
        "--data data.tsv --output results",
        files={"data.tsv": TABLE},
    ),
}
"""Name -> situation."""


def write_world(folder: Path) -> Path:
    """Write the models of the situations, and return their directory."""
    from unidpo_mm.plugins import load_family

    load_family("text").tiny(folder / "model", model_type="llama")
    for name, file, text, other in UNUSABLE:
        path = load_family("llava").tiny(folder / name) / file
        path.write_text(path.read_text().replace(text, other))
    return folder


def message_of(name: str, world: Path) -> str:
    """Return the message of a situation, in lines of at most 80 characters.

    Raises:
        RuntimeError: If a command ended with another exit code.
    """
    situation = SITUATIONS[name]
    here = Path(tempfile.mkdtemp(prefix="situation-"))
    try:
        _write_files(here, world, situation)
        if situation.earlier:
            _run(situation.earlier, here, situation)
        if situation.damage:
            (here / situation.damage).write_bytes(b"")
        done = _run(situation.command, here, situation)
        if done.code != situation.code:
            raise RuntimeError(f"{name}: exit code {done.code}: {done.output[-3000:]}")
        return _documented(done, situation, here)
    finally:
        shutil.rmtree(here, ignore_errors=True)


def _write_files(here: Path, world: Path, situation: Situation) -> None:
    for name in ("model", *(name for name, *_ in UNUSABLE)):
        (here / name).symlink_to(world / name)
    (here / "recipe.yaml").write_text(RECIPE)
    pairs = [
        {"prompt": f"What is {n}?", "chosen": "Seven " + "x" * n, "rejected": "Eight"}
        for n in range(8)
    ]
    (here / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    for name, content in situation.files.items():
        (here / name).write_text(content)


def _run(command: str, here: Path, situation: Situation) -> Finished:
    arguments = shlex.split(command)

    def run() -> None:
        from unidpo_mm.cli.main import main

        logging.root.handlers.clear()  # those of pytest would take the warnings
        sys.argv = ["unidpo-mm", *arguments]
        main()

    env: dict[str, str | None] = dict.fromkeys(LAUNCHER)
    env |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "NO_COLOR": "1", **situation.env}
    return run_forked(run, env=env, cwd=here, timeout=60)


def _documented(done: Finished, situation: Situation, here: Path) -> str:
    """Return the error, or the lines with a part, without the name of the directory."""
    lines = done.output.splitlines()
    if situation.part:
        lines = [line for line in lines if re.search(situation.part, line)]
    else:
        starts = [n for n, line in enumerate(lines) if line.lower().startswith("error: ")]
        lines = lines[starts[0] :] if starts else lines
    text = "\n".join(line.rstrip() for line in lines).replace(f"{here.resolve()}/", "")
    text = text.replace(str(here.resolve()), ".")
    return "\n".join(_wrapped(line) for line in text.strip().splitlines())


def _wrapped(line: str) -> str:
    indent = "    " if line.startswith("  - ") else "  "
    return textwrap.fill(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def updated_page(page: str, world: Path) -> str:
    """Return the page with all messages as they are printed now."""
    return BLOCK.sub(lambda match: f"{match[1]}{message_of(match['name'], world)}\n", page)


if __name__ == "__main__":
    preload()
    with tempfile.TemporaryDirectory() as name:
        world = write_world(Path(name))
        if sys.argv[1:]:
            for situation in SITUATIONS if sys.argv[1] == "all" else sys.argv[1:]:
                try:
                    print(f"--- {situation}\n{message_of(situation, world)}\n")  # noqa: T201 - the output of this script
                except RuntimeError as error:
                    print(f"--- {situation} FAILED {error}")  # noqa: T201 - the output of this script
        else:
            PAGE.write_text(updated_page(PAGE.read_text("utf-8"), world), encoding="utf-8")

"""Time and memory of a preference step beside TRL's: same pairs, one process, interleaved.

    make bench                    # every case
    make bench ARGS="'LLaVA VQA'"

"packed" and "plain" are ours, in both layouts, the reference run live. Processing of pictures and
collation are counted, the optimizer's step is not. Time is the CPU time of this process on one
thread, memory the peak of live tensors above what lived before the step. The models are random and
small, of real proportions (shapes.py).
"""

import csv
import gc
import itertools
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from shapes import CASES, LLAVA_TOWER, MROPE, QWEN_TOWER, TEXT, Case

from unidpo_mm.plugins import load_family

ROUNDS = 5
COLUMNS = ("case", "who", "seconds", "spread", "megabytes", "speedup", "memory", "loss")
LORA = {"r": 16, "lora_alpha": 32}
LAYERS = r".*(q|k|v|o|gate|up|down)_proj"


def build(case: Case, folder: Path) -> Path:
    """Writes the random checkpoint of a case, with a tiny tokenizer and a real processor."""
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(0)
    family = {"llava": "llava", "qwen2_vl": "qwen_vl", "llama": "text"}[case.family]
    load_family(family).tiny(folder, model_type=case.family)
    tiny = AutoConfig.from_pretrained(folder)
    ids = {key: getattr(tiny.get_text_config(), key) for key in ("eos_token_id", "pad_token_id")}
    if case.family == "llama":
        config = AutoConfig.for_model("llama", **TEXT, **ids)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return folder
    processor = transformers.AutoProcessor.from_pretrained(folder)
    if case.family == "llava":
        config = AutoConfig.for_model(
            "llava",
            vision_config=AutoConfig.for_model("clip_vision_model", **LLAVA_TOWER),
            text_config=AutoConfig.for_model("llama", **TEXT, **ids),
            image_token_id=tiny.image_token_id,
        )
        side = LLAVA_TOWER["image_size"]
        processor.image_processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
    else:
        marks = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        config = AutoConfig.for_model(
            "qwen2_vl",
            text_config={**TEXT, "rope_parameters": MROPE, **ids},
            vision_config=QWEN_TOWER,
            **{mark: getattr(tiny, mark) for mark in marks},
        )
        processor.image_processor = transformers.Qwen2VLImageProcessor()
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def rows_of(case: Case) -> list[dict[str, Any]]:
    """Returns groups with scored answers; a letter is about one token."""
    draw = random.Random(0)

    def text(length: int) -> str:
        return "".join(draw.choice("bcdfghjklmnpqrstvwxz") for _ in range(length))

    rows = []
    for _ in range(case.groups):
        answers = [
            {"text": text(draw.randint(*case.answers)), "score": float(case.responses - n)}
            for n in range(case.responses)
        ]
        row: dict[str, Any] = {
            "prompt": [{"role": "user", "content": text(case.prompt - 8)}],
            "responses": answers,
        }
        if case.picture is not None:
            pixels = torch.randint(0, 255, (*case.picture[::-1], 3), dtype=torch.uint8).numpy()
            row["images"] = [Image.fromarray(pixels)]
        rows.append(row)
    return rows


def pairs_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the same preferences as TRL reads them."""
    pairs = []
    for row in rows:
        for better, worse in itertools.combinations(row["responses"], 2):
            pair = {key: row[key] for key in ("prompt", "images") if key in row}
            pair["chosen"] = [{"role": "assistant", "content": better["text"]}]
            pair["rejected"] = [{"role": "assistant", "content": worse["text"]}]
            pairs.append(pair)
    return pairs


def settings(folder: Path, pairs: int, *, checkpointing: bool) -> dict[str, Any]:
    """Returns what both trainers are told."""
    return {
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": pairs,
        "max_steps": 1,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "max_grad_norm": 0.0,
        "beta": 0.1,
        "activation_checkpointing": checkpointing,
    }


def ours(
    case: Case,
    folder: Path,
    *,
    checkpointing: bool = True,
    layout: str = "packed",
    caches: bool = False,
) -> Callable[[], float]:
    """Returns a function that runs one step from rows to gradients and gives the loss."""
    from peft import LoraConfig

    from unidpo_mm import UniDPOConfig, UniDPOTrainer

    rows = rows_of(case)
    args = UniDPOConfig(
        **settings(folder, len(pairs_of(rows)), checkpointing=checkpointing),
        loss_type="sigmoid",
        layout=layout,
        eval_generations=0,
        preflight=False,
        model_init_kwargs={"dtype": "float32"},
        reference="cached" if caches else "auto",
        reference_build="first_epoch",
        feature_cache_gb=1.0 if caches else 0.0,
    )
    lora = LoraConfig(**LORA, target_modules=layers(case))
    return stepper(UniDPOTrainer(str(folder), args, train_dataset=rows, peft_config=lora))


def theirs(case: Case, folder: Path, *, checkpointing: bool, hooks: bool) -> Callable[[], float]:
    """The same with TRL; without its hooks it does not back-propagate through a frozen tower."""
    import trl.trainer.utils
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    trl.trainer.utils._use_triton = lambda device: (
        True
    )  # score response positions only, as on a GPU
    pairs = pairs_of(rows_of(case))
    args = DPOConfig(
        **settings(folder, len(pairs), checkpointing=checkpointing),
        max_length=None,
        model_init_kwargs={"dtype": "float32"},
    )
    trainer = DPOTrainer(
        str(folder),
        args=args,
        train_dataset=Dataset.from_list(pairs),
        peft_config=LoraConfig(**LORA, target_modules=layers(case)),
    )
    step = stepper(trainer)
    if not hooks:
        trainer.model.get_base_model().disable_input_require_grads()
    return step


def layers(case: Case) -> str:
    """Returns the linear layers of the language model, as a pattern of module names."""
    return LAYERS if case.family == "llama" else f".*language_model{LAYERS}"


def stepper(trainer: Any) -> Callable[[], float]:
    """Returns a step of a trainer: one batch from its rows, loss, gradients."""
    model, loader = trainer.model, trainer.get_train_dataloader()
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()

    def step() -> float:
        model.zero_grad()
        loss = trainer.compute_loss(model, next(iter(loader)))
        loss.backward()
        return float(loss.detach())

    return step


def cpu_seconds(step: Callable[[], float]) -> float:
    """Returns the CPU time of one step."""
    gc.collect()
    began = time.process_time()
    step()
    return time.process_time() - began


def peak_megabytes(step: Callable[[], float]) -> float:
    """Returns the peak of live tensors above what lived before, from the profiler's events."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    live = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak / 2**20


CONTENDERS: dict[str, Callable[[Case, Path], Callable[[], float]]] = {
    "TRL": lambda case, folder: theirs(case, folder, checkpointing=True, hooks=True),
    "TRL, no hooks": lambda case, folder: theirs(case, folder, checkpointing=True, hooks=False),
    "TRL, no ckpt": lambda case, folder: theirs(case, folder, checkpointing=False, hooks=False),
    "plain": lambda case, folder: ours(case, folder, layout="plain"),
    "packed": ours,
    "packed, caches": lambda case, folder: ours(case, folder, caches=True),
    "packed, caches, no ckpt": lambda case, folder: ours(
        case, folder, caches=True, checkpointing=False
    ),
}


def compare(case: Case) -> list[dict[str, Any]]:
    """Returns a line for each contender; speed and memory are relative to TRL as it ships."""
    with TemporaryDirectory() as name:
        folder = build(case, Path(name) / "model")
        os.environ["UNIDPO_MM_CACHE"] = str(Path(name) / "cache")
        steps = {who: make(case, folder) for who, make in CONTENDERS.items()}
        losses = {who: step() for who, step in steps.items()}  # warms up, too
        seconds: dict[str, list[float]] = {who: [] for who in steps}
        for _ in range(ROUNDS):
            for who, step in steps.items():
                seconds[who].append(cpu_seconds(step))
        megabytes = {who: peak_megabytes(step) for who, step in steps.items()}
    return [
        {
            "case": case.name,
            "who": who,
            "seconds": round(statistics.median(values), 3),
            "spread": round(max(values) - min(values), 3),
            "megabytes": round(megabytes[who], 1),
            "speedup": round(statistics.median(seconds["TRL"]) / statistics.median(values), 2),
            "memory": round(megabytes[who] / megabytes["TRL"], 3),
            "loss": losses[who],
        }
        for who, values in seconds.items()
    ]


def main(wanted: list[str]) -> None:
    """Prints the table of the cases named, or of all, as CSV."""
    torch.set_num_threads(1)
    out = csv.DictWriter(sys.stdout, COLUMNS)
    out.writeheader()
    for case in CASES:
        if not wanted or case.name in wanted:
            for line in compare(case):
                out.writerow(line)
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])

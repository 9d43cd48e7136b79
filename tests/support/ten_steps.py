"""Ten steps with a checkpoint in the middle, in one process or in one rank of several.

The run saves at the fifth step; a second trainer resumes from there. Rank and number of processes
come from the environment. Only some rows have images, so that some micro-batches have none.
"""

import functools
import importlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from support.distributed_modes import local_units, mixed_rows, use_sharding

from unidpo_mm import UniDPOConfig, UniDPOTrainer

__all__ = ["largest_change", "read_run", "ten_steps"]

STEPS = 10


def settings(folder: Path, name: str, options: Mapping[str, Any]) -> UniDPOConfig:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    return UniDPOConfig(
        **{
            "output_dir": str(folder / name),
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2 // world,
            "max_steps": STEPS,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": STEPS // 2,
            "learning_rate": 1e-2,
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "report_to": "none",
            "use_cpu": not deepspeed,
            "ddp_backend": "gloo" if deepspeed else None,
            "disable_tqdm": True,
            "freeze": [],
            "seed": 1,
            "eval_generations": 0,
            **options,
        }
    )


def ten_steps(
    folders: Sequence[Path],
    name: str,
    *,
    sharded: bool = False,
    peft_config: Any = None,
    local_mean: bool = False,
    **options: Any,
) -> None:
    """Train the model in each folder for ten steps, resume from the fifth, and record both.

    Args:
        folders: Directories with a checkpoint `model`; the results are written there.
        name: The name of the results.
        sharded: Whether to shard with FSDP2.
        peft_config: A LoRA adapter to train.
        local_mean: Whether each process divides by its own units, as a negative control.
        **options: Changes of the settings.
    """
    if sharded:
        use_sharding()
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        without_compiling()
    for folder in folders:
        os.environ["UNIDPO_MM_CACHE"] = str(folder / f"cache-{name}")
        for resumes in (False, True):
            args = settings(folder, name, options)
            trainer = UniDPOTrainer(
                str(folder / "model"), args, train_dataset=rows_for(folder), peft_config=peft_config
            )
            if local_mean:
                trainer.get_batch_samples = functools.partial(local_units, trainer)
            checkpoint = str(folder / name / f"checkpoint-{STEPS // 2}") if resumes else None
            trainer.train(resume_from_checkpoint=checkpoint)
            trainer.save_model(str(folder / f"{name}-{'resumed' if resumes else 'straight'}"))
            if args.process_index == 0 and not resumes:
                record = {
                    "logs": [log for log in trainer.state.log_history if "loss" in log],
                    "layout": trainer.layout.layout,
                    "reason": trainer.layout.reason,
                    "divided": divided(trainer.model),
                }
                (folder / f"{name}.json").write_text(json.dumps(record))
            trainer.accelerator.free_memory()
            trainer.accelerator.wait_for_everyone()
        if args.process_index == 0:
            shutil.rmtree(folder / name)


def without_compiling() -> None:
    """Let DeepSpeed compile nothing, neither its own collectives nor one of its optimizers."""
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    original, torch.compile = torch.compile, lambda function: function
    try:
        importlib.import_module("deepspeed.runtime.zero.muon.muon_optimizer")
    finally:
        torch.compile = original


def rows_for(folder: Path) -> list[dict]:
    """Return rows for a model: without images for one that reads text alone."""
    config = json.loads((folder / "model" / "config.json").read_text())
    if "vision_config" in config:
        return mixed_rows()
    kept = ("prompt", "responses")
    return [{name: row[name] for name in kept} for row in mixed_rows()]


def divided(model: torch.nn.Module) -> int:
    """Return the number of weights of which this process holds a part."""
    kinds = [type(p).__name__ == "DTensor" or hasattr(p, "ds_id") for p in model.parameters()]
    return sum(kinds)


def read_run(folder: Path, name: str) -> tuple[dict, dict, dict]:
    """Return the record of a run, its final weights, and those of the resumed run."""
    weights = []
    for ending in ("straight", "resumed"):
        files = sorted((folder / f"{name}-{ending}").glob("*model.safetensors"))
        weights.append(load_file(files[0]))
    return json.loads((folder / f"{name}.json").read_text()), *weights


def largest_change(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference between two models with the same weights."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)

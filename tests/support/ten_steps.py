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
from builders import tiny_checkpoint
from safetensors.torch import load_file
from support.accelerate_configs import launch_environment
from support.distributed_modes import local_units, mixed_rows, use_sharding
from support.forked_runs import preload, run_ranks

from unidpo_mm import UniDPOConfig, UniDPOTrainer
from unidpo_mm.config import LoraOptions

__all__ = ["MODEL_TYPES", "TenSteps", "largest_change", "ten_steps"]

STEPS = 10

MODEL_TYPES = ("llama", "llava", "qwen2_vl", "idefics3")
"""A text model, two families with images, and one that the generic family serves."""

Result = tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor]]


class TenSteps:
    """Runs of ten steps by name and model type; each is started when it is asked for.

    The first part of a name is `single`, `ddp`, `fsdp2`, or a shipped configuration of DeepSpeed;
    `-lora` after it trains an adapter, and `-wrong` is the negative control.

    Args:
        folder: A directory for checkpoints and results.
        timeout: Seconds after which a run is killed.
    """

    def __init__(self, folder: Path, *, timeout: float) -> None:
        self.folder, self.timeout = folder, timeout
        preload()

    def result(self, name: str, model_type: str) -> Result:
        """Return the record of a run, its final weights, and those of the resumed run."""
        folder = self.folder / model_type
        if not folder.exists():
            folder.mkdir()
            tiny_checkpoint(folder / "model", model_type)
        if not (folder / f"{name}.json").is_file():
            self.start(folder, name)
        weights = []
        for ending in ("straight", "resumed"):
            (file,) = (folder / f"{name}-{ending}").glob("*model.safetensors")
            weights.append(load_file(file))
        return json.loads((folder / f"{name}.json").read_text()), weights[0], weights[1]

    def start(self, folder: Path, name: str) -> None:
        """Run ten steps in as many processes as the name says."""
        kind, _, variant = name.partition("-")
        run = functools.partial(
            ten_steps,
            [folder],
            name,
            sharded=kind == "fsdp2",
            peft_config=LoraOptions(r=4) if variant == "lora" else None,
            local_mean=variant == "wrong",
        )
        deepspeed = kind.startswith("deepspeed")
        env = {**launch_environment(kind), "DS_ACCELERATOR": "cpu"} if deepspeed else {}
        if kind == "deepspeed_zero3":  # accelerate's default; whole models are saved all the same
            env["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] = "false"
        processes = 1 if kind == "single" else 2
        ends = run_ranks(run, processes=processes, env=env, timeout=self.timeout)
        output = "\n".join(end.output[-4000:] for end in ends)
        assert all(end.code == 0 for end in ends), output


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


def largest_change(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> float:
    """Return the largest difference between two models with the same weights."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max()) for name in left)

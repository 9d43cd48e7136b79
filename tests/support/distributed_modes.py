"""Train in one process of a distributed run, in one or several modes, and write a file for each.

The modes are ``single``, ``ddp``, ``fsdp2``, the last two with ``_fast`` for packed rows and a
cached reference, ``fsdp2_half``, in bfloat16, and ``local_mean``, a negative control in which each
process divides by its local units. Rank and number of processes come from the environment.
"""

import functools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from unidpo_mm import UniDPOConfig, UniDPOTrainer

STEPS = 3


def mixed_rows(*, videos: bool = False) -> list[dict]:
    """Return text, math and image rows; some micro-batches have no image.

    With videos, some rows have one, and some micro-batches have neither.
    """
    image = Image.new("RGB", (40, 30), (200, 30, 30))
    rows = []
    for number in range(12):
        answers = ["A red square" + " and a circle" * (number % 3), "Blue" + " dog" * (number % 4)]
        if number % 4 == 0:
            answers.append(
                "Nothing at all"
            )  # three pairs, so that processes have unequal numbers of them
        scored = [{"text": text, "score": 4.0 - 1.1 * n} for n, text in enumerate(answers)]
        row = {"prompt": f"What is {number} in the image?", "responses": scored}
        if number in (0, 5, 6):
            row |= {"images": [image] * (1 + number % 2), "domain": "multimodal"}
        elif videos and number in (3, 6, 8):
            row |= {"videos": [[image] * (2 + number % 3)], "domain": "multimodal"}
        elif number % 2:
            row["domain"] = "math"
        rows.append(row)
    return rows


def use_sharding() -> None:
    """Make accelerate shard on a CPU in this process, which it does not support officially."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    original = AcceleratorState.__init__

    def sharded(self, *args, **kwargs):
        original(self, *args, **kwargs)
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2, auto_wrap_policy="transformer_based_wrap", reshard_after_forward=True
        )
        if self.mixed_precision != "no":  # as accelerate does for a plugin of its own
            self.fsdp_plugin.set_mixed_precision(self.mixed_precision)

    AcceleratorState.__init__ = sharded
    os.environ["ACCELERATE_USE_FSDP"] = "true"  # as accelerate's launcher sets it
    assert Accelerator  # the class reads the state patched above


def local_units(trainer, epoch_iterator, num_batches, device):
    samples = [next(epoch_iterator) for _ in range(num_batches)]
    units = sum(item["batch"].pairs.weight.sum() for item in samples)
    return samples, units * trainer.accelerator.num_processes


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(folder: Path, mode: str, *, videos: bool = False) -> None:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    args = UniDPOConfig(
        output_dir=str(folder / f"out-{mode}"),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4 // world,
        max_steps=STEPS,
        logging_steps=1,
        save_strategy="no",
        learning_rate=1e-2,
        optim="sgd",
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        freeze=[],
        seed=1,
        eval_max_new_tokens=4,
        layout="joined" if mode.endswith("_fast") else "plain",
        reference="cached" if mode.endswith("_fast") else "auto",
        memory="1e-6" if mode.endswith("_fast") else None,
        bf16=mode.endswith("_half"),
    )
    rows = mixed_rows(videos=videos)
    trainer = UniDPOTrainer(str(folder / "model"), args, train_dataset=rows)
    if mode == "local_mean":
        trainer.get_batch_samples = functools.partial(local_units, trainer)
    formats = set()

    def record_format(model, inputs, output):
        if isinstance(output, torch.Tensor):  # log-probs, not the logits of a check
            formats.add(str(output.dtype))

    trainer.model.register_forward_hook(record_format)
    trainer.train()
    sharded = [type(p).__name__ for p in trainer.model.parameters()]
    weights = {
        n.removeprefix("model."): full(p.detach()) for n, p in trainer.model.named_parameters()
    }
    metrics = trainer.evaluate(rows)
    if int(os.environ.get("RANK", "0")) == 0:
        logs = [log for log in trainer.state.log_history if "loss" in log]
        torch.save(weights, folder / f"{mode}.pt")
        result = {"logs": logs, "sharded": sharded.count("DTensor"), "metrics": metrics}
        result["formats"] = sorted(formats)
        if mode.endswith("_fast"):
            result["cached"] = len(trainer.parts.reference.store)
        (folder / f"{mode}.json").write_text(json.dumps(result))


def train_modes(
    modes: Sequence[str], folders: Sequence[Path], cache: Path, *, videos: bool = False
) -> None:
    """Train the checkpoint `model` of each folder in each mode, and write the results there."""
    if modes[0].startswith("fsdp2"):
        use_sharding()
    for mode in modes:
        os.environ["UNIDPO_MM_CACHE"] = str(cache / mode)
        for folder in folders:
            train(folder, mode, videos=videos)

"""Run one process of FSDP2 training that saves each step, resumes from the second and compares.

Usage: sharded_worker.py MODEL FOLDER, under torchrun; rank 0 prints "sharded and equal".
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from support.distributed_modes import full, mixed_rows, use_sharding

from unidpo_mm import UniDPOConfig, UniDPOTrainer


def build(model: str, output: Path) -> UniDPOTrainer:
    args = UniDPOConfig(
        output_dir=str(output),
        per_device_train_batch_size=2,
        max_steps=4,
        save_strategy="steps",
        save_steps=1,
        logging_steps=1,
        learning_rate=1e-3,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        freeze=[],
        seed=1,
    )
    return UniDPOTrainer(model, args, train_dataset=mixed_rows())


def main(model: str, folder: Path) -> None:
    use_sharding()
    straight = build(model, folder / "out")
    straight.train()
    expected = {name: full(p.detach()).clone() for name, p in straight.model.named_parameters()}
    sharded = all(type(p).__name__ == "DTensor" for p in straight.model.parameters())
    resumed = build(model, folder / "out")
    resumed.train(resume_from_checkpoint=str(folder / "out" / "checkpoint-2"))
    same = all(
        torch.equal(full(p.detach()), expected[name])
        for name, p in resumed.model.named_parameters()
    )
    if os.environ["RANK"] == "0" and sharded and same and resumed.state.global_step == 4:
        sys.stdout.write("sharded and equal\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

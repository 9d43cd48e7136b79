"""Two processes give the weights of one, even if only one of them has a video."""

from pathlib import Path

import pytest
import torch
from support.distributed_modes import train_modes
from support.forked_runs import run_ranks

from unidpo_mm.plugins import load_family


@pytest.mark.slow
def test_two_processes_with_videos_give_the_weights_of_a_single_one(tmp_path: Path) -> None:
    """Some micro-batches have an image, some a video and some neither."""
    load_family("qwen_vl").tiny(tmp_path / "model", model_type="qwen2_5_vl")
    for modes, processes in ((("single",), 1), (("ddp", "ddp_fast"), 2), (("fsdp2",), 2)):
        ends = run_ranks(
            lambda modes=modes: train_modes(modes, [tmp_path], tmp_path / "cache", videos=True),
            processes=processes,
        )
        outputs = "\n".join(end.output[-3000:] for end in ends)
        assert [end.code for end in ends] == [0] * processes, outputs
    expected = torch.load(tmp_path / "single.pt")
    for mode in ("ddp", "ddp_fast", "fsdp2"):
        weights = torch.load(tmp_path / f"{mode}.pt")
        assert weights.keys() == expected.keys()
        difference = max(float((weights[n] - expected[n]).abs().max()) for n in expected)
        assert difference < 1e-6, mode

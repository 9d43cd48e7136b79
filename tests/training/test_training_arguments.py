"""Every argument of transformers' TrainingArguments is honored or refused with a reason."""

from pathlib import Path

import pytest
import torch

from unidpo_mm import UniDPOConfig
from unidpo_mm.config.checks import python_arguments
from unidpo_mm.config.checks.launch import folder_problem, launch_problems
from unidpo_mm.config.training_arguments import (
    ARGUMENTS,
    REMOVED,
    refused_values,
    training_arguments,
)
from unidpo_mm.errors import RecipeError

REFUSED = {
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5,
    "train_sampling_strategy": "group_by_length",
    "dataloader_drop_last": True,
    "auto_find_batch_size": True,
    "torch_compile": True,
    "label_names": ["labels"],
    "include_for_metrics": ["inputs"],
    "average_tokens_across_devices": False,
    "use_cache": True,
    "dataloader_in_order": False,
    "eval_do_concat_batches": False,
    "bf16_full_eval": True,
    "include_num_input_tokens_seen": True,
}


def test_the_table_covers_every_argument_of_the_installed_transformers():
    assert set(training_arguments()) == set(ARGUMENTS)
    assert not set(REMOVED) & set(ARGUMENTS)
    assert all(
        argument.note and argument.remedy for argument in ARGUMENTS.values() if argument.refused
    )


def test_defaults_of_transformers_are_accepted():
    assert refused_values(training_arguments()) == []
    assert UniDPOConfig(output_dir="out", remove_unused_columns=True, do_train=True, use_cpu=True)


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_python_refuses_arguments_without_effect(name: str, value):
    with pytest.raises(RecipeError, match=f"^{name}: not supported: "):
        UniDPOConfig(output_dir="out", use_cpu=True, **{name: value})


def test_python_refuses_values_out_of_range_all_at_once():
    with pytest.raises(RecipeError) as caught:
        UniDPOConfig(
            output_dir="out",
            use_cpu=True,
            learning_rate=float("inf"),
            per_device_train_batch_size=0,
            num_train_epochs=-1,
            seed=-1,
            dataloader_num_workers=-1,
            max_grad_norm=float("nan"),
            accelerator_config={"split_batches": True},
        )
    assert [problem.where for problem in caught.value.problems] == [
        "per_device_train_batch_size",
        "num_train_epochs",
        "learning_rate",
        "max_grad_norm",
        "seed",
        "dataloader_num_workers",
        "accelerator_config.split_batches",
    ]


def test_python_refuses_an_environment_that_starts_other_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT are not set"):
        UniDPOConfig(output_dir="out", use_cpu=True)


def test_python_refuses_sharding_on_a_cpu_that_only_the_environment_requests(monkeypatch):
    monkeypatch.setattr(python_arguments, "FSDP_AT_START", "true")
    with pytest.raises(RecipeError, match="ACCELERATE_USE_FSDP: FSDP is requested, and the run"):
        UniDPOConfig(output_dir="out", use_cpu=True)


def test_the_environment_of_torchrun_is_accepted():
    env = {
        "WORLD_SIZE": "4",
        "RANK": "3",
        "LOCAL_WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "node0",
        "MASTER_PORT": "29500",
    }
    assert launch_problems(env) == []
    assert launch_problems({}) == []
    assert launch_problems({"MASTER_ADDR": "node0", "MASTER_PORT": "29500"}) == []


def test_checking_a_writable_directory_does_not_change_it(tmp_path: Path):
    assert folder_problem(tmp_path / "a" / "b") == ""
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert "is a file" in folder_problem(tmp_path / "file")
    assert "is a file" in folder_problem(tmp_path / "file" / "below")
    assert "does not exist" in folder_problem(tmp_path / "absent", create=False)


def test_slow_bfloat16_on_a_cpu_causes_a_warning_with_its_factor(monkeypatch, caplog):
    monkeypatch.setattr(python_arguments, "bfloat16_slowdown", lambda: 6.46)
    UniDPOConfig(output_dir="out", use_cpu=True, bf16=True)
    (message,) = caplog.messages
    assert message.startswith(
        "bf16 (train.bf16): this processor multiplies bfloat16 6.5 times slow"
    )
    caplog.clear()
    UniDPOConfig(output_dir="out", use_cpu=True)
    monkeypatch.setattr(python_arguments, "bfloat16_slowdown", lambda: 0.3)
    UniDPOConfig(output_dir="out", use_cpu=True, bf16=True)
    assert caplog.messages == []


def test_several_processes_without_a_gpu_use_the_cpu(monkeypatch):
    args = UniDPOConfig(output_dir="out", use_cpu=True)
    args.use_cpu = False
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    python_arguments.use_cpu_without_gpus(args)
    assert args.use_cpu is False
    monkeypatch.setenv("WORLD_SIZE", "2")
    python_arguments.use_cpu_without_gpus(args)
    assert args.use_cpu is True
    with pytest.raises(RecipeError, match="2 processes were started and this one would train in 1"):
        python_arguments.check_processes(args)

"""Senseless values that the libraries would accept are refused, in Python and in YAML."""

import logging
import math
from typing import Any

import pytest
from torch import nn

from unidpo_mm.config.checks.argument_ranges import loss_range_problems, range_problems
from unidpo_mm.config.checks.optimizer import optimizer_problems
from unidpo_mm.config.checks.python_arguments import check_steps
from unidpo_mm.config.python import UniDPOConfig
from unidpo_mm.data.scores import scale_problems
from unidpo_mm.errors import ModelError, RecipeError
from unidpo_mm.modeling.lora_targets import PYTHON_KEYS, RECIPE_KEYS, check_rank
from unidpo_mm.records import Message, PreferenceRow, Response
from unidpo_mm.training.configured_loss import configure_loss


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("learning_rate", 1e38, 1.0),
        ("weight_decay", 1e38, 0.1),
        ("adam_epsilon", 1e38, 1e-8),
        ("adam_epsilon", 1e-60, 1e-12),
        ("max_grad_norm", 1e-300, 0),
        ("num_train_epochs", 1e9, 1000),
        ("max_steps", 10**12, 10**6),
        ("gradient_accumulation_steps", 10**9, 512),
    ],
)
def test_values_out_of_range_are_refused(name: str, wrong: object, right: object):
    (problem,) = range_problems({name: wrong}, {}, prefix="train.")
    assert problem.where.startswith(f"train.{name}")
    assert not range_problems({name: right}, {})


@pytest.mark.parametrize(
    ("name", "wrong", "right", "message"),
    [
        ("worker_timeout", 1e-9, 1, "Use 0 for no limit, or at least 1 second"),
        ("feature_cache_gb", 1e-9, 0.5, "Use 0 for no cache, or at least 1e-06 gigabytes"),
        ("learning_rates", {"projector": 1e38}, {"projector": 1e-3}, "less than or equal to 100"),
        ("layout", "pakced", "packed", "did you mean 'packed'"),
        ("freeze", "vision_tower", ["vision_tower"], "Use a list"),
        ("score_scale", [0, 5, 9], (0, 5), "Use two numbers"),
        ("scores", {"scael": [0, 5]}, {"scale": [0, 5]}, "did you mean 'scale'"),
        ("logps_chunk_size", 0, 64, "greater than or equal to 1"),
    ],
)
def test_options_are_validated_in_python(name: str, wrong: object, right: object, message: str):
    with pytest.raises(RecipeError, match=message) as refused:
        UniDPOConfig(output_dir="out", report_to="none", **{name: wrong})
    assert refused.value.problems[0].where.startswith(name)
    UniDPOConfig(output_dir="out", report_to="none", **{name: right})


def test_weight_decay_times_learning_rate_stays_below_one():
    assert not range_problems({"weight_decay": 0.1, "learning_rate": 1.0}, {})
    rates = {"learning_rate": 1e-6, "learning_rates": {"projector": 0.5}}
    (problem,) = range_problems({"weight_decay": 4.0, **rates}, {})
    assert problem.where == "weight_decay"
    assert "learning_rates.projector 0.5" in problem.message


def test_a_warmup_ends_before_the_run(tmp_path):
    assert not range_problems({"warmup_steps": 4, "max_steps": 4}, {})
    assert not range_problems({"warmup_steps": 400, "max_steps": -1}, {})
    (problem,) = range_problems({"warmup_steps": 5, "max_steps": 4}, {})
    assert "5 steps of warmup in a run of 4 steps" in problem.message
    args = UniDPOConfig(output_dir=str(tmp_path), report_to="none", warmup_steps=5)
    check_steps(args, 5)
    with pytest.raises(RecipeError, match="5 steps of warmup in a run of 1 step\\."):
        check_steps(args, 1)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"learning_rate": 10**400}, "learning_rate"),
        ({"weight_decay": -(10**400)}, "weight_decay"),
        ({"debug": True}, "debug"),
        ({"accelerator_config": {1: 2}}, "accelerator_config.1"),
        ({"fsdp": "full_shard", "fsdp_config": "a" * 300}, "fsdp_config"),
    ],
)
def test_values_of_any_type_and_size_are_reported(values: dict[str, Any], where: str):
    (problem,) = range_problems(values, {})
    assert problem.where == where


def test_image_sizes_are_only_compared_if_they_are_numbers():
    assert not range_problems({"image_min_size": "many", "image_max_size": 3}, {})


@pytest.mark.parametrize(
    "options",
    [
        {"loss_kwargs": {"tau_good": math.inf}},
        {"tau_good": math.nan},
        {"learning_rates": {"projector": math.inf}},
        {"model_init_kwargs": {"x": [math.nan]}},
        {"max_length": 10**30},
    ],
)
def test_python_refuses_the_same_numbers(tmp_path, options: dict):
    with pytest.raises(RecipeError, match=next(iter(options))):
        UniDPOConfig(output_dir=str(tmp_path), report_to="none", **options)


def test_loss_parameters_must_fit_float32():
    with pytest.raises(RecipeError, match=r"loss.beta: found the number 1e\+38. Use a number from"):
        configure_loss("dpo", {"beta": 1e38})
    with pytest.raises(RecipeError, match=r"data source 's', loss.beta"):
        configure_loss("dpo", {}, {"s": {"beta": 1e-300}})
    assert not loss_range_problems({"beta": 0.1, "tau_good": 1e7, "length_norm": True})


@pytest.mark.parametrize("memory", ["1e-9", "1e-10"])
def test_zero_memory_does_not_mean_auto(memory: str):
    with pytest.raises(RecipeError, match=r"memory: .*Use auto, or gigabytes"):
        UniDPOConfig(output_dir="out", memory=memory)


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ({"optim": "sgd", "optim_args": "momentum=0.9,nesterov=true"}, ""),
        ({"optim": "sgd", "optim_args": "momentum=0.0"}, ""),
        ({"optim": "rmsprop", "optim_args": "alpha=0.9"}, ""),
        ({"optim": "sgd", "optim_args": "lr_decay=0.1"}, "does not read 'lr_decay'"),
        ({"optim": "adagrad", "optim_args": "eps=1e-3,momentum=1"}, "does not read 'momentum'"),
        ({"optim_args": "weight_decay=1"}, "'adamw_torch_fused' does not read 'weight_decay'"),
        ({"optim": "adafactor", "adam_beta2": 0.95}, "does not read it"),
        ({"optim": "adamw_torch", "adam_beta2": 0.95}, ""),
        ({"optim": "sgd", "adam_beta2": 0.999}, ""),
        ({"optim": "sgd", "optim_args": "momentum=nan"}, "not a number"),
    ],
)
def test_options_that_an_optimizer_ignores_are_refused(train: dict, text: str):
    problems = list(optimizer_problems({**train, "use_cpu": True}))
    assert [text in problem.message for problem in problems] == ([True] if text else [])


def adapted(rank: int) -> nn.Module:
    from peft import LoraConfig, inject_adapter_in_model

    model = nn.ModuleDict({"narrow": nn.Linear(4, 32), "wide": nn.Linear(16, 32)})
    return inject_adapter_in_model(LoraConfig(r=rank, target_modules=["narrow", "wide"]), model)


def test_a_lora_rank_beyond_the_size_of_its_layers_is_refused(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        check_rank(adapted(4), RECIPE_KEYS)
        assert not caplog.records
        check_rank(adapted(16), RECIPE_KEYS)
    assert "the rank 16 is larger than the smaller side of narrow (4)" in caplog.text
    with pytest.raises(ModelError, match=r"peft_config.r: the rank 17 .* Use at most 16"):
        check_rank(adapted(17), PYTHON_KEYS)


def test_a_score_scale_without_any_score_inside_is_refused():
    def row(source: str, *scores: float | None) -> PreferenceRow:
        responses = tuple(Response(text=str(n), score=s) for n, s in enumerate(scores))
        messages = (Message(role="user", parts=("?",)),)
        return PreferenceRow(
            id="1",
            domain="text",
            source=source,
            where="x",
            messages=messages,
            responses=responses,
        )

    rows = [row("a", 3.0, 8.0), row("b", 50.0, 150.0), row("c", None, None)]
    assert not scale_problems(rows, None, "data.score_scale")
    (problem,) = scale_problems(rows, (100.0, 200.0), "data.score_scale")
    assert problem.message == "no score of source 'a' is in [100, 200]: they range from 3 to 8"

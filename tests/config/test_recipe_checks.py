"""Checks of a recipe that know losses, training arguments or the disk."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typing_extensions import TypedDict

from unidpo_mm.config import Recipe
from unidpo_mm.config.checks.recipe import check_files, check_loss, check_machine, check_train
from unidpo_mm.config.checks.types import type_problems


def recipe(**sections: Any) -> Recipe:
    base: dict[str, Any] = {
        "model": {"name_or_path": "a/b"},
        "data": {"sources": [{"path": "c/d"}]},
    }
    return Recipe.model_validate(base | sections)


def loss(**parameters: Any) -> list[str]:
    return [str(problem) for problem in check_loss(recipe(loss=parameters))]


def test_losses_pass_with_their_defaults():
    assert [loss(name=name) for name in ("uni_dpo", "dpo", "simpo", "sft")] == [[]] * 4


def test_good_parameters_pass():
    assert not loss(name="uni_dpo", beta=2, eta=0.7, tau_good=8, length_norm=["margin", "nll"])
    assert not loss(name="dpo", beta=0.1, label_smoothing=0.1, length_norm=True)


def test_an_unknown_loss_lists_the_choices():
    (problem,) = loss(name="unidpo")
    assert "loss.name: unknown loss 'unidpo', did you mean 'uni_dpo'?" in problem
    assert "simpo" in problem


def test_a_parameter_of_another_loss_lists_the_parameters():
    (problem,) = loss(name="dpo", gamma=3.0)
    assert problem.startswith("loss.gamma: the loss 'dpo' has no parameter 'gamma'")
    assert "Choose from beta, label_smoothing, length_norm" in problem


def test_a_misspelt_parameter_does_not_hide_other_problems():
    places = [problem.split(": ")[0] for problem in loss(gama=3, beta=-1, eta="x", gamma=-2)]
    assert places == ["loss.gama", "loss.eta", "loss.beta", "loss.gamma"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("betta", 1, "no parameter 'betta', did you mean 'beta'?"),
        ("beta", "2", "loss.beta: found the text '2'. Use a number"),
        ("beta", True, "loss.beta: found true. Use a number"),
        ("beta", None, "loss.beta: found null. Use a number"),
        ("beta", -1, "loss.beta: beta must be > 0"),
        ("tau_good", "mean", "found the text 'mean'"),
        ("detach_weights", "no", "found the text 'no'. Use false"),
        ("quality_weight", "scores", "did you mean 'score'? Use one of score, none"),
        (
            "length_norm",
            ["margin", "all"],
            "length_norm.1: found the text 'all'",
        ),
    ],
)
def test_wrong_values_have_a_remedy(name: str, value: Any, message: str):
    (problem,) = loss(**{name: value})
    assert message in problem


def test_all_ranges_are_reported_together():
    assert len(loss(beta=-1, eta=-1, gamma=-1)) == 3


def test_sources_are_checked_against_the_same_loss():
    data = {
        "sources": [{"path": "a/b", "loss": {"beta": -1.0}}],
        "eval_sources": [{"path": "a/b", "loss": {"gamma": 1.0}}],
    }
    (problem,) = check_loss(recipe(data=data))
    assert problem.where == "data.sources.0.loss.beta"
    wrong = check_loss(recipe(data=data, loss={"name": "dpo"}))
    assert [problem.where for problem in wrong] == [
        "data.sources.0.loss.beta",
        "data.eval_sources.0.loss.gamma",
    ]


def test_a_loss_without_reference_may_have_one():
    assert not check_loss(recipe(loss={"name": "sft"}, train={"reference": "frozen_copy"}))


def train(**arguments: Any) -> list[str]:
    return [str(problem) for problem in check_train(recipe(train=arguments))]


def test_training_arguments_pass():
    good = {
        "output_dir": "x",
        "learning_rates": {"projector": 1e-3},
        "learning_rate": 1,
        "per_device_train_batch_size": 4,
        "bf16": True,
        "lr_scheduler_type": "cosine",
        "eval_strategy": "no",
        "report_to": ["tensorboard"],
        "max_grad_norm": 1.0,
        "activation_checkpointing": True,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "run_name": None,
    }
    assert train(**good) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("learning_rat", 1, "training argument 'learning_rat', did you mean 'learning_rate'?"),
        ("learning_ratess", 1, "did you mean 'learning_rates'?"),
        ("learning_rate", "1e-6", "found the text '1e-6'. Use a number"),
        ("bf16", "yes", "found the text 'yes'. Use true"),
        ("per_device_train_batch_size", 4.5, "found the number 4.5. Use a whole number"),
        ("lr_scheduler_type", "cosin", "did you mean 'cosine'? Use one of linear"),
        ("resume_from_checkpoint", "x", "Use run.resume instead"),
    ],
)
def test_wrong_training_arguments_have_a_remedy(name: str, value: Any, message: str):
    (problem,) = train(**{name: value})
    assert message in problem
    assert problem.startswith(f"train.{name}: ")


def files(model: str | Path, path: str | Path, images: Path | None = None) -> list[str]:
    source = {"path": str(path)} | ({"images": str(images)} if images else {})
    built = recipe(model={"name_or_path": str(model)}, data={"sources": [source]})
    return [str(problem) for problem in check_files(built)]


def test_existing_files_and_directories_pass(tmp_path: Path):
    (tmp_path / "config.json").touch()
    (tmp_path / "a.jsonl").touch()
    assert files(tmp_path, tmp_path / "a.jsonl", tmp_path) == []
    assert files(tmp_path, tmp_path) == []


def test_names_on_a_hub_are_not_looked_up():
    assert files("org/model-1.5", "org/pairs") == []


@pytest.mark.parametrize("model", ["model", "./model", "/absent/model", "a/b/c"])
def test_a_missing_model_is_named(model: str):
    (problem,) = files(model, "org/pairs")
    assert problem.startswith(f"model.name_or_path: the directory '{model}' does not exist")


@pytest.mark.parametrize("path", ["a.jsonl", "data/a.jsonl", "/absent/a", "pairs"])
def test_a_missing_data_file_is_named(path: str):
    (problem,) = files("org/model", path)
    assert problem.startswith(f"data.sources.0.path: the file '{path}' does not exist")


def test_wrong_directories_are_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    texts = files(tmp_path, tmp_path / "empty", tmp_path / "file")
    assert len(texts) == 3
    assert "has no config.json" in texts[0]
    assert "is empty" in texts[1]
    assert "is not a directory" in texts[2]
    assert "Use the directory that contains it" in files(tmp_path / "file", "org/pairs")[0]
    assert "does not exist" in files("org/model", "org/pairs", tmp_path / "absent")[0]


def test_a_lora_adapter_directory_needs_its_base_model(tmp_path: Path):
    adapter, base = tmp_path / "adapter", tmp_path / "base"
    adapter.mkdir()
    base.mkdir()
    (base / "config.json").write_text("{}")

    def checked(recorded: str | None, **model: Any) -> list[str]:
        content = json.dumps({"base_model_name_or_path": recorded})
        (adapter / "adapter_config.json").write_text(content)
        section = {"name_or_path": str(adapter), **model}
        built = recipe(model=section, data={"sources": [{"path": "org/pairs"}]})
        return [str(problem) for problem in check_files(built)]

    assert checked(str(base)) == []
    assert checked("../base") == []  # relative to the adapter's directory
    assert checked("org/model") == []
    assert checked("/absent/model", base_name_or_path=str(base)) == []
    (problem,) = checked("/absent/model")
    assert problem.startswith(f"{adapter / 'adapter_config.json'}: the base model '/absent/model'")
    assert "Set model.base_name_or_path to the base model, or correct base_model" in problem
    (problem,) = checked(None)
    assert "does not say which base model" in problem
    (problem,) = checked(str(base), base_name_or_path="/absent/other")
    assert problem.startswith("model.base_name_or_path: the base model '/absent/other'")
    (problem,) = checked(str(adapter))
    assert "is an adapter itself. Merge it first: unidpo-mm merge" in problem
    (problem,) = checked(str(base), lora={})
    assert problem.startswith("model.lora: ")
    assert f"unidpo-mm merge {adapter} --output" in problem
    (adapter / "adapter_config.json").write_text("[")
    section = {"name_or_path": str(adapter)}
    (broken,) = check_files(recipe(model=section, data={"sources": [{"path": "org/pairs"}]}))
    assert "it cannot be read" in str(broken)
    section = {"name_or_path": str(base), "base_name_or_path": str(base)}
    (unused,) = check_files(recipe(model=section, data={"sources": [{"path": "org/pairs"}]}))
    assert "is not a LoRA adapter directory" in str(unused)


def test_an_evaluation_needs_held_out_rows():
    arguments = {"output_dir": "out", "eval_strategy": "steps"}
    (problem,) = check_train(recipe(train=arguments))
    assert str(problem).startswith("train.eval_strategy: no row is held out. Set data.eval_fr")
    data = {"sources": [{"path": "c/d"}], "eval_fraction": 0.1}
    assert not check_train(recipe(train=arguments, data=data))


def test_a_best_model_needs_matching_strategies():
    data = {"sources": [{"path": "c/d"}], "eval_fraction": 0.1}
    arguments = {
        "output_dir": "out",
        "load_best_model_at_end": True,
        "eval_strategy": "steps",
        "save_strategy": "epoch",
    }
    (problem,) = check_train(recipe(train=arguments, data=data))
    assert problem.where == "train.load_best_model_at_end"
    assert problem.message == "save_strategy 'epoch' and eval_strategy 'steps' do not match"
    arguments |= {"save_strategy": "steps", "save_steps": 3, "eval_steps": 2}
    (problem,) = check_train(recipe(train=arguments, data=data))
    assert "such as 4" in problem.remedy
    arguments |= {"save_steps": 4}
    assert not check_train(recipe(train=arguments, data=data))
    assert not check_machine(recipe(train=arguments, data=data))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can compute in bfloat16")
def test_bf16_without_a_gpu_is_reported_with_its_key():
    (problem,) = check_machine(recipe(train={"output_dir": "out", "bf16": True}))
    assert problem.where == "train.bf16"
    assert "train.use_cpu=true" in problem.remedy
    assert not check_machine(recipe(train={"output_dir": "out", "bf16": True, "use_cpu": True}))


class Weighted(TypedDict):
    weight: float


def test_problems_of_nested_values_name_the_path():
    (missing,) = type_problems("loss.parts", {"a": {}}, dict[str, Weighted])
    assert str(missing) == "loss.parts.a.weight: 'weight' is missing. Add it."
    (wrong,) = type_problems("loss.parts", {"a": {"weight": "x"}}, dict[str, Weighted])
    assert wrong.where == "loss.parts.a.weight"

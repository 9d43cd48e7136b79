"""Configurations of the official text and math code: the released ones become our presets."""

from functools import partial
from pathlib import Path

import pytest
from migrations import migrate_text

from unidpo_mm.config import Recipe, load_recipe
from unidpo_mm.errors import RecipeError

TEXT = """
model_name_or_path: Qwen/Qwen2.5-7B
ref_model: Qwen/Qwen2.5-7B
output_dir: runs/text
dataset_mixer:
  "data/UltraFeedback-GPT-4o": 1.0
dataset_splits:
  - train
preprocessing_num_workers: 12

learning_rate: 2.0e-6
pref_loss: uni_dpo
beta: 3.5
uni_dpo_qual_eta: 0.7
uni_dpo_tau_ref: 0.8
uni_dpo_perf_gamma: 3.0
uni_dpo_nll_lambda: 0.001
uni_dpo_tau_good: 3.2
use_ref_model: True
dpo_length_norm: True
seed: 42
warmup_ratio: 0.1
run_name: mine

max_samples: None      # as the released files have it
torch_dtype: null
attn_implementation: flash_attention_2
bf16: true
do_eval: true
eval_strategy: steps
eval_steps: 1000
gradient_accumulation_steps: 16
gradient_checkpointing: true
gradient_checkpointing_kwargs:
  use_reentrant: False
lr_scheduler_type: cosine
max_length: 2048
max_prompt_length: 1800
num_train_epochs: 1
optim: adamw_torch
per_device_train_batch_size: 1
save_strategy: "steps"
save_steps: 1000000
"""

MATH = """
model_name_or_path: Qwen/Qwen2.5-Math-7B
ref_model: Qwen/Qwen2.5-Math-7B
train_data_path: data/math.jsonl
output_dir: runs/math
gradient_checkpointing: true
bf16: true
eot_token: <|im_end|>
sanity_check: False
lr_scheduler_type: cosine
max_length: 4096
max_prompt_length: 1000
num_train_epochs: 2
learning_rate: 1.0e-6
loss_type: uni_dpo
beta: 2.0
uni_dpo_nll_lambda: 0.2
uni_dpo_tau_good: 8.0
"""

SHORT = "model_name_or_path: a/b\ndataset_mixer: {a/c: 1.0}\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


migrated = partial(migrate_text, framework="the official code")


def preset(name: str) -> Recipe:
    return load_recipe(Path(__file__).parents[2] / "configs" / "paper" / name)


def test_text_configuration_has_the_released_settings(directory: Path) -> None:
    recipe, notes = migrated(directory, TEXT)
    parameters = {**preset("qwen2_5_7b.yaml").loss.parameters}
    assert parameters.pop("detach_weights") is False
    assert recipe.loss.name == "uni_dpo"
    assert recipe.loss.parameters == parameters
    assert recipe.model.dtype == "float32"  # what null means there
    assert recipe.model.attn_implementation == "flash_attention_2"
    assert recipe.data.max_length == 2048
    assert [source.path for source in recipe.data.sources] == ["data/UltraFeedback-GPT-4o"]
    assert recipe.data.sources[0].split == "train"
    assert recipe.data.eval_sources == ()
    assert recipe.train.reference == "auto"
    arguments = recipe.train.arguments
    assert (arguments["learning_rate"], arguments["warmup_steps"], arguments["seed"]) == (
        2e-6,
        0.1,
        42,
    )
    assert arguments["activation_checkpointing"] is True
    assert arguments["activation_checkpointing_kwargs"] == {"use_reentrant": False}
    assert arguments["eval_strategy"] == "no"
    assert set(notes) == {
        "preprocessing_num_workers",
        "max_samples",
        "do_eval",
        "eval_strategy",
        "max_length",
        "max_prompt_length",
    }


def test_math_configuration_has_the_released_settings(directory: Path) -> None:
    recipe, notes = migrated(directory, MATH)
    released = preset("qwen2_5_math_7b.yaml")
    parameters = {**released.loss.parameters}
    assert parameters.pop("detach_weights") is False
    assert recipe.loss.parameters == parameters
    assert recipe.model.prompt_style == released.model.prompt_style == "raw"
    assert recipe.model.dtype == released.model.dtype
    assert recipe.data.max_length == released.data.max_length
    assert (recipe.data.sources[0].path, recipe.data.sources[0].domain) == (
        "data/math.jsonl",
        "math",
    )
    assert recipe.train.arguments["optim"] == "rmsprop"  # the default of its config class
    assert "ends with the tokenizer's end token" in notes["eot_token"]
    assert notes["sanity_check"] == "disabled, so there is nothing to migrate"


def test_defaults_are_stated(directory: Path) -> None:
    recipe, notes = migrated(directory, SHORT)
    assert recipe.loss.name == "uni_dpo"
    assert recipe.loss.parameters == {
        "beta": 2.0,
        "eta": 0.1,
        "tau_ref": 0.8,
        "gamma": 1.0,
        "nll_lambda": 0.01,
        "tau_good": 7.0,
        "length_norm": True,
    }
    assert recipe.model.dtype == "float32"
    assert recipe.data.max_length == 512
    assert [source.split for source in recipe.data.sources] == ["train"]
    assert [source.split for source in recipe.data.eval_sources] == ["test"]
    assert recipe.train.arguments == {"learning_rate": 5e-5}
    assert notes == {}


def test_simpo_margin_is_in_reward_units(directory: Path) -> None:
    recipe, notes = migrated(
        directory, SHORT + "pref_loss: simpo\nbeta: 10.0\ngamma_beta_ratio: 0.3\n"
    )
    assert recipe.loss.name == "simpo"
    assert recipe.loss.parameters == {"beta": 10.0, "simpo_gamma": 3.0}
    assert "reward units" in notes["gamma_beta_ratio"]


def test_dpop_penalty_remains_outside_beta(directory: Path) -> None:
    recipe, notes = migrated(
        directory, MATH.replace("loss_type: uni_dpo", "loss_type: dpo_positive")
    )
    assert recipe.loss.name == "dpop"
    assert recipe.loss.parameters == {
        "beta": 2.0,
        "dpop_lambda": 0.2,
        "penalty_in_beta": False,
        "length_norm": True,
    }
    assert "has no effect on the loss" in notes["uni_dpo_tau_good"]


def test_directory_with_split_files_becomes_their_paths(directory: Path) -> None:
    (directory / "mine").mkdir()
    (directory / "mine" / "train.jsonl").write_text("{}")
    recipe, notes = migrated(directory, SHORT.replace("a/c: 1.0", "mine: 1.0, b/d: 0.5"))
    first, second = recipe.data.sources
    assert first.path == str(directory / "mine" / "train.jsonl")
    assert (second.path, second.split) == ("b/d", "train")
    assert "'b/d' has the share 0.5" in (directory / "recipe.yaml").read_text() + str(notes)
    assert (
        "of a directory only Parquet files are read"
        in migrated(directory, SHORT.replace("a/c", "somewhere"))[1]["dataset_mixer"]
    )


def test_other_reference_model_has_a_note(directory: Path) -> None:
    _, notes = migrated(directory, SHORT + "ref_model: other/model\nuse_ref_model: false\n")
    assert "pass ref_model in Python" in notes["ref_model"]
    assert "always has one" in notes["use_ref_model"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHORT + "pref_loss: simop\n", "did you mean 'simpo'"),
        (SHORT + "pref_loss: simpo\nloss_type: hinge\n", "SimPO with a hinge"),
        (SHORT.replace("{a/c: 1.0}", "[]"), "key 'dataset_mixer': it contains no data set"),
        (
            SHORT + "pref_loss: simpo\nbeta: high\n",
            "'beta': expected a number, not the text 'high'",
        ),
        (SHORT + "uni_dpo_perf_gamma: -1.0\n", "key 'uni_dpo_perf_gamma'"),
    ],
    ids=["loss", "hinge", "no data", "beta", "range"],
)
def test_unsupported_values_are_errors(directory: Path, text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        migrated(directory, text)

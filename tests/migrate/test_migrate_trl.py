"""Arguments of TRL, as YAML and JSON: values, stated defaults, losses, notes and errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from migrations import migrate_text

from unidpo_mm.config import Recipe
from unidpo_mm.errors import RecipeError

FILE = """
# trl dpo --config this.yaml
model_name_or_path: Qwen/Qwen2-0.5B-Instruct
dtype: bfloat16
dataset_name: trl-lib/ultrafeedback_binarized
dataset_config: en
learning_rate: 5.0e-6
num_train_epochs: 1
per_device_train_batch_size: 2
gradient_accumulation_steps: 8
gradient_checkpointing: yes
max_length: 2048
beta: 0.05
loss_type: sigmoid
label_smoothing: 0.1
use_peft: true
lora_r: 32
lora_alpha: 16
lora_target_modules: [all-linear]
precompute_ref_log_probs: false
eval_strategy: "no"
warmup_ratio: 0.1
seed: 3
output_dir: out
report_to: none
remove_unused_columns: no
"""

SHORT = {"model_name_or_path": "a/b", "dataset_name": "a/c"}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def short(directory: Path, **values: Any) -> tuple[Recipe, dict[str, str]]:
    return migrate_text(directory, json.dumps({**SHORT, **values}), "TRL", "config.json")


def test_configuration(directory: Path) -> None:
    recipe, notes = migrate_text(directory, FILE, "TRL")
    assert recipe.model.model_dump(exclude_defaults=True) == {
        "name_or_path": "Qwen/Qwen2-0.5B-Instruct",
        "dtype": "bfloat16",
        "prompt_style": "raw",  # TRL renders messages only
        "lora": {"r": 32, "alpha": 16, "dropout": 0.05, "targets": "all-linear"},
    }
    assert [source.path for source in recipe.data.sources] == ["trl-lib/ultrafeedback_binarized"]
    assert recipe.data.eval_sources == ()
    assert (recipe.data.max_length, recipe.data.seed) == (2048, 3)
    assert recipe.loss.name == "dpo"
    assert recipe.loss.parameters == {"beta": 0.05}
    assert recipe.train.output_dir == "out"
    assert recipe.train.arguments == {
        "learning_rate": 5e-6,
        "num_train_epochs": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 8,
        "activation_checkpointing": True,  # `yes` is true for the readers of these files
        "eval_strategy": "no",
        "warmup_steps": 0.1,
        "seed": 3,
        "report_to": "none",
        "logging_steps": 10,
        "bf16": True,
    }
    assert recipe.run.resume == "auto"
    assert set(notes) == {
        "dataset_config",
        "max_length",
        "label_smoothing",
        "remove_unused_columns",
    }
    assert "no effect" in notes["label_smoothing"]
    assert recipe.train.reference == "auto"
    cached, notes = short(directory, precompute_ref_log_probs=True)
    assert cached.train.reference == "cached"
    assert "precompute_ref_log_probs" not in notes


def test_arguments_as_json(directory: Path) -> None:
    """Indented by tabs, which YAML forbids, and with a path that needs quotes."""
    values = {**SHORT, "loss_type": ["sigmoid"], "output_dir": "a: b #1", "max_length": None}
    recipe, notes = migrate_text(directory, json.dumps(values, indent="\t"), "TRL", "config.json")
    assert recipe.loss.name == "dpo"
    assert recipe.train.output_dir == "a: b #1"
    assert recipe.data.max_length is None
    assert set(notes) == {"max_length"}


def test_defaults_are_stated(directory: Path) -> None:
    recipe, notes = short(directory)
    assert recipe.model.model_dump(exclude_defaults=True) == {
        "name_or_path": "a/b",
        "dtype": "float32",
        "freeze": [],  # TRL trains the vision tower too
        "prompt_style": "raw",
    }
    assert recipe.data.max_length == 1024
    assert recipe.loss.name == "dpo"
    assert recipe.loss.parameters == {"beta": 0.1}
    assert recipe.train.arguments == {
        "activation_checkpointing": True,
        "logging_steps": 10,
        "bf16": True,
    }
    assert notes == {}


@pytest.mark.parametrize(
    ("values", "name", "parameters"),
    [
        ({"loss_type": "sigmoid_norm"}, "dpo", {"beta": 0.1, "length_norm": True}),
        ({"loss_type": "ipo", "beta": 0.2}, "ipo", {"beta": 0.2}),
        ({"loss_type": "hinge"}, "hinge", {"beta": 0.1}),
        ({"loss_type": "robust"}, "robust", {"beta": 0.1, "label_smoothing": 0.0}),
        ({"loss_type": "bco_pair"}, "bco", {"beta": 0.1, "shift": 0.0}),
        (
            {"loss_type": "exo_pair", "label_smoothing": 0.01},
            "exo",
            {"beta": 0.1, "label_smoothing": 0.01},
        ),
        ({"loss_type": "nca_pair"}, "nca", {"beta": 0.1}),
        ({"loss_type": "sppo_hard"}, "sppo", {"beta": 0.1}),
        ({"loss_type": "aot"}, "aot", {"beta": 0.1, "label_smoothing": 0.0}),
        ({"loss_type": "apo_down"}, "apo", {"beta": 0.1, "variant": "down"}),
        ({"loss_type": "discopop"}, "discopop", {"beta": 0.1, "discopop_tau": 0.05}),
        ({"f_divergence_type": "js_divergence"}, "f_dpo", {"beta": 0.1, "divergence": "js"}),
        (
            {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3},
            "f_dpo",
            {"beta": 0.1, "divergence": "alpha", "alpha": 0.3},
        ),
        ({"f_divergence_type": "reverse_kl"}, "dpo", {"beta": 0.1}),
        ({"ld_alpha": 0.4}, "ld_dpo", {"beta": 0.1, "ld_alpha": 0.4}),
        ({"loss_type": "sft"}, "sft", {}),
        ({"use_weighting": True}, "wpo", {"beta": 0.1}),
        (
            {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},
            "mpo",
            {
                "losses": {"dpo": 0.8, "bco": 0.2, "sft": 1.0},
                "parameters": {"dpo": {"beta": 0.1}, "bco": {"beta": 0.1, "shift": 0.0}},
            },
        ),
        (
            {"loss_type": ["sigmoid", "sft"], "beta": 0.3},
            "mpo",
            {"losses": {"dpo": 1.0, "sft": 1.0}, "parameters": {"dpo": {"beta": 0.3}}},
        ),
        (
            {"loss_type": ["hinge", "sft"], "loss_weights": [1, 2]},
            "mpo",
            {"losses": {"hinge": 1.0, "sft": 2.0}, "parameters": {"hinge": {"beta": 0.1}}},
        ),
        (
            {"loss_type": "sigmoid", "loss_weights": [2.0]},
            "mpo",
            {"losses": {"dpo": 2.0}, "parameters": {"dpo": {"beta": 0.1}}},
        ),
    ],
    ids=[
        "norm",
        "ipo",
        "hinge",
        "robust",
        "bco",
        "exo",
        "nca",
        "sppo",
        "aot",
        "apo",
        "discopop",
        "js",
        "alpha",
        "reverse",
        "lengths",
        "sft",
        "wpo",
        "mpo",
        "equal weights",
        "hinge and sft",
        "one with a weight",
    ],
)
def test_losses(
    directory: Path, values: dict[str, Any], name: str, parameters: dict[str, Any]
) -> None:
    recipe, _ = short(directory, **values)
    assert recipe.loss.name == name
    assert recipe.loss.parameters == parameters


def test_losses_with_another_meaning_have_a_note(directory: Path) -> None:
    assert "over all tokens" in short(directory, loss_type=["sigmoid", "sft"])[1]["loss_type"]
    assert "concentration" in short(directory, use_weighting=True)[1]["use_weighting"]
    assert "no effect" in short(directory, loss_type="sft", beta=0.1)[1]["beta"]
    sft = short(directory, loss_type="sft", loss_weights=[2.0])
    assert sft[0].loss.name == "sft"
    assert "weight 1" in sft[1]["loss_weights"]


def test_fp16_replaces_the_default_bf16(directory: Path) -> None:
    recipe, _ = short(directory, fp16=True)
    assert recipe.train.arguments["bf16"] is False
    assert recipe.train.arguments["fp16"] is True


def test_evaluation_split_needs_an_evaluation_strategy(directory: Path) -> None:
    recipe, _ = short(directory, eval_strategy="steps", dataset_train_split="train_prefs")
    assert recipe.data.sources[0].split == "train_prefs"
    assert [source.split for source in recipe.data.eval_sources] == ["test"]
    recipe, notes = short(directory, dataset_test_split="test_prefs")
    assert recipe.data.eval_sources == ()
    assert "not used" in notes["dataset_test_split"]


def test_mixture_of_data_sets(directory: Path) -> None:
    recipe, notes = short(
        directory,
        datasets=[
            {"path": "json", "data_files": ["a.jsonl", "b.jsonl"]},
            {"path": "x/y", "split": "pairs", "columns": ["prompt"]},
        ],
        test_split_size=0.1,
    )
    assert [(source.path, source.split) for source in recipe.data.sources] == [
        ("a.jsonl", None),
        ("b.jsonl", None),
        ("x/y", "pairs"),
    ]
    assert recipe.data.eval_fraction == 0.1
    assert "columns of 'x/y' is ignored" in notes["datasets"]
    assert "together with `datasets`" in notes["dataset_name"]


def test_config_of_from_pretrained(directory: Path) -> None:
    kwargs = {"dtype": "bfloat16", "attn_implementation": "eager", "variant": "x"}
    recipe, _ = short(directory, model_init_kwargs=kwargs)
    assert recipe.model.dtype == "bfloat16"
    assert recipe.model.attn_implementation == "eager"
    assert recipe.model.init_kwargs == {"variant": "x"}


def test_lora_keys_without_lora_have_a_note(directory: Path) -> None:
    recipe, notes = short(directory, lora_r=8)
    assert recipe.model.lora is None
    assert "has no effect" in notes["lora_r"]


def test_default_targets_of_peft_are_stated_with_a_note(directory: Path) -> None:
    recipe, notes = short(directory, use_peft=True)
    assert recipe.model.lora is not None
    assert recipe.model.lora.targets == ("q_proj", "v_proj")
    assert "PEFT chooses" in notes["lora_target_modules"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss_type": ["sigmoid", "kto"]}, "losses.kto cannot be a part of a mixture"),
        ({"loss_type": "exo_pair"}, r"label_smoothing must be in \(0, 0.5\), found 0.0"),
        (
            {"loss_type": "ipo", "ld_alpha": 0.5},
            "length desensitization is supported for sigmoid alone",
        ),
        ({"f_divergence_type": "hellinger"}, "there is no divergence 'hellinger'"),
        (
            {"loss_type": "hinge", "f_divergence_type": "js_divergence"},
            "another divergence is supported for sigmoid only",
        ),
        ({"loss_type": "robst"}, "did you mean 'robust'"),
        ({"loss_type": ["sigmoid", "sigmoid_norm"]}, "two of these losses are the same loss"),
        ({"loss_type": ["sft", "sft"]}, "two of these losses are the same loss"),
        (
            {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0]},
            "for each of the 2 losses",
        ),
        (
            {"loss_type": "hinge", "use_weighting": True},
            "supported for sigmoid only",
        ),
        ({"datasets": [{"name": "x"}]}, "an entry has no path"),
        ({"eval_strategy": "no", "evaluation_strategy": "steps"}, "contradicts"),
        ({"beta": -1.0}, "key 'beta'"),
        ({"precompute_ref_log_probs": "all"}, "Use one of true, false, null"),
        ({"max_length": "long"}, "key 'max_length': found the text 'long'"),
    ],
    ids=[
        "not a loss of pairs",
        "no smoothing",
        "lengths of another loss",
        "divergence",
        "divergence of a loss",
        "misspelt",
        "same loss",
        "twice",
        "weights",
        "weighting",
        "data",
        "two names",
        "range",
        "no truth value",
        "type",
    ],
)
def test_unsupported_values_are_errors(
    directory: Path, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        short(directory, **values)


@pytest.mark.parametrize("values", [{"loss_type": "kto"}, {}], ids=["named", "recognized"])
def test_files_of_trl_kto(directory: Path, values: dict[str, Any]) -> None:
    recipe, _ = short(directory, beta=0.3, desirable_weight=1.5, **values)
    expected = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 1.0}
    assert (recipe.loss.name, recipe.loss.parameters) == ("kto", expected)


def test_unpaired_apo_is_kto_without_kl(directory: Path) -> None:
    recipe, _ = short(directory, loss_type="apo_zero_unpaired")
    assert (recipe.loss.name, recipe.loss.parameters["kl"]) == ("kto", "none")

"""Every key of every table: where it goes, or what is said of it; nothing goes without a word."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import Migration, migrate
from unidpo_mm.migrate.arguments import ARGUMENTS, training_arguments
from unidpo_mm.migrate.origins import ORIGINS
from unidpo_mm.training.aliases import OFFICIAL_NAMES

Run = Callable[[Mapping[str, Any]], Migration]
LEAST: dict[str, dict[str, Any]] = {
    "LLaMA-Factory": {"model_name_or_path": "a/b", "stage": "dpo", "dataset": "pairs"},
    "the official code": {"model_name_or_path": "a/b", "dataset_mixer": {"a/c": 1.0}},
    "TRL": {"model_name_or_path": "a/b", "dataset_name": "a/c"},
}
"""The shortest file of each origin."""

PEFT = {"use_peft": True}
LORA = {
    "use_peft": (True, "model.lora.r", 16),
    "lora_r": (4, "model.lora.r", 4, PEFT),
    "lora_alpha": (4, "model.lora.alpha", 4, PEFT),
    "lora_dropout": (0.1, "model.lora.dropout", 0.1, PEFT),
    "lora_target_modules": (["k_proj"], "model.lora.targets", ["k_proj"], PEFT),
    "lora_modules_to_save": (["lm_head"], "model.lora.modules_to_save", ["lm_head"], PEFT),
}
UNI_DPO = {
    "uni_dpo_qual_eta": (0.3, "loss.eta", 0.3),
    "uni_dpo_tau_ref": (0.5, "loss.tau_ref", 0.5),
    "uni_dpo_perf_gamma": (1.5, "loss.gamma", 1.5),
    "uni_dpo_nll_lambda": (0.2, "loss.nll_lambda", 0.2),
    "uni_dpo_tau_good": (8.0, "loss.tau_good", 8.0),
}
REGISTERED = {"path": "mine/dataset_info.json", "subset": "pairs"}
SOURCE = {"path": "x/y"}

CARRIED: dict[str, dict[str, tuple[Any, ...]]] = {
    "LLaMA-Factory": {
        "model_name_or_path": ("x/y", "model.name_or_path", "x/y"),
        "trust_remote_code": (True, "model.trust_remote_code", True),
        "model_revision": ("v1", "model.init_kwargs.revision", "v1"),
        "flash_attn": ("fa2", "model.attn_implementation", "flash_attention_2"),
        "image_max_pixels": (5000, "model.image_max_pixels", 5000),
        "image_min_pixels": (2000, "model.image_min_pixels", 2000),
        "stage": ("dpo", "loss.name", "dpo"),
        "finetuning_type": ("full", "model.lora", None),
        "lora_rank": (4, "model.lora.r", 4),
        "lora_alpha": (3, "model.lora.alpha", 3),
        "lora_dropout": (0.1, "model.lora.dropout", 0.1),
        "lora_target": ("q_proj, v_proj", "model.lora.targets", ["q_proj", "v_proj"]),
        "additional_target": ("lm_head", "model.lora.modules_to_save", ["lm_head"]),
        "freeze_vision_tower": (False, "model.freeze", ["projector"]),
        "freeze_multi_modal_projector": (False, "model.freeze", ["vision_tower"]),
        "freeze_language_model": (
            True,
            "model.freeze",
            ["projector", "language_model"],
            {"freeze_vision_tower": False},
        ),
        "train_mm_proj_only": (True, "model.freeze", ["vision_tower", "language_model"]),
        "template": ("default", "model.prompt_style", "chat"),
        "dataset": ("x/y", "data.sources", [SOURCE]),
        "dataset_dir": (
            "mine",
            "data.sources",
            [REGISTERED],
        ),
        "media_dir": ("images", "data.sources", [{"path": "pairs", "images": "images"}]),
        "eval_dataset": ("x/y", "data.eval_sources", [SOURCE]),
        "val_size": (0.1, "data.eval_fraction", 0.1),
        "cutoff_len": (512, "data.max_length", 512),
        "pref_loss": ("hinge", "loss.name", "hinge"),
        "pref_beta": (0.3, "loss.beta", 0.3),
        "dpo_label_smoothing": (0.2, "loss.label_smoothing", 0.2),
        "simpo_gamma": (1.4, "loss.simpo_gamma", 1.4, {"pref_loss": "simpo"}),
        "pref_ftx": (0.5, "loss.losses", {"dpo": 1.0, "sft": 0.5}),
        "pref_bco_weight": (0.25, "loss.losses", {"dpo": 0.8, "bco": 0.2}),
        **{key: (*expected, {"pref_loss": "uni_dpo"}) for key, expected in UNI_DPO.items()},
        "dpo_average_log_prob": (True, "loss.length_norm", True),
        "bf16": (True, "model.dtype", "bfloat16"),
        "fp16": (True, "model.dtype", "float16"),
        "pure_bf16": (True, "model.dtype", "bfloat16"),
        "learning_rate": (1e-6, "train.learning_rate", 1e-6),
        "disable_gradient_checkpointing": (True, "train.activation_checkpointing", False),
        "resume_from_checkpoint": ("out/checkpoint-5", "run.resume", "out/checkpoint-5"),
    },
    "the official code": {
        **LORA,
        **UNI_DPO,
        "model_name_or_path": ("x/y", "model.name_or_path", "x/y"),
        "torch_dtype": ("bfloat16", "model.dtype", "bfloat16"),
        "attn_implementation": ("eager", "model.attn_implementation", "eager"),
        "trust_remote_code": (True, "model.trust_remote_code", True),
        "model_revision": ("v1", "model.init_kwargs.revision", "v1"),
        "dataset_mixer": (
            {"x/y": 1.0},
            "data.sources",
            [{"path": "x/y", "split": "train"}],
            {"dataset_splits": ["train"]},
        ),
        "dataset_splits": (
            ["train", "test_a"],
            "data.eval_sources",
            [{"path": "a/c", "split": "test_a"}],
        ),
        "train_data_path": ("m.jsonl", "data.sources", [{"path": "m.jsonl", "domain": "math"}]),
        "max_length": (2048, "data.max_length", 2048),
        "pref_loss": ("simpo", "loss.name", "simpo"),
        "loss_type": ("dpo_positive", "loss.name", "dpop", {"train_data_path": "m.jsonl"}),
        "beta": (3.5, "loss.beta", 3.5),
        "dpo_length_norm": (False, "loss.length_norm", False),
        "gamma_beta_ratio": (0.5, "loss.simpo_gamma", 1.0, {"pref_loss": "simpo"}),
        "simpo_gamma": (
            1.4,
            "loss.simpo_gamma",
            1.4,
            {"train_data_path": "m.jsonl", "loss_type": "simpo"},
        ),
        "use_ref_model": (True, "train.reference", "auto"),
        "ref_model": ("a/b", "train.reference", "auto"),
        "learning_rate": (1e-6, "train.learning_rate", 1e-6),
        "hub_model_revision": ("main", "train.hub_revision", "main"),
    },
    "TRL": {
        **LORA,
        "model_name_or_path": ("x/y", "model.name_or_path", "x/y"),
        "dtype": ("bfloat16", "model.dtype", "bfloat16"),
        "torch_dtype": ("float16", "model.dtype", "float16"),
        "attn_implementation": ("eager", "model.attn_implementation", "eager"),
        "trust_remote_code": (True, "model.trust_remote_code", True),
        "model_revision": ("v1", "model.init_kwargs.revision", "v1"),
        "model_init_kwargs": ({"variant": "fp16"}, "model.init_kwargs", {"variant": "fp16"}),
        "dataset_name": ("x/y", "data.sources", [SOURCE]),
        "datasets": ([{"path": "x/y"}], "data.sources", [SOURCE]),
        "dataset_train_split": ("a", "data.sources", [{"path": "a/c", "split": "a"}]),
        "dataset_test_split": (
            "b",
            "data.eval_sources",
            [{"path": "a/c", "split": "b"}],
            {"eval_strategy": "epoch"},
        ),
        "test_split_size": (0.1, "data.eval_fraction", 0.1),
        "max_length": (None, "data.max_length", None),
        "loss_type": ("ipo", "loss.name", "ipo"),
        "loss_weights": (
            [0.5, 2],
            "loss.losses",
            {"dpo": 0.5, "sft": 2.0},
            {"loss_type": ["sigmoid", "sft"]},
        ),
        "beta": (0.3, "loss.beta", 0.3),
        "label_smoothing": (0.2, "loss.label_smoothing", 0.2, {"loss_type": "robust"}),
        "use_weighting": (True, "loss.name", "wpo"),
        "bf16": (False, "train.bf16", False),
        "gradient_checkpointing": (False, "train.activation_checkpointing", False),
        "logging_steps": (3, "train.logging_steps", 3),
        "precompute_ref_log_probs": (True, "train.reference", "cached"),
        "resume_from_checkpoint": (None, "run.resume", "never"),
    },
    "arguments": {
        "output_dir": ("x", "train.output_dir", "x"),
        "seed": (7, "data.seed", 7),
        "data_seed": (8, "data.seed", 8, {"seed": 7}),
        "warmup_ratio": (0.1, "train.warmup_steps", 0.1),
        "gradient_checkpointing": (False, "train.activation_checkpointing", False),
        "gradient_checkpointing_kwargs": (
            {"use_reentrant": False},
            "train.activation_checkpointing_kwargs",
            {"use_reentrant": False},
        ),
        "evaluation_strategy": ("epoch", "train.eval_strategy", "epoch", {"test_split_size": 0.1}),
        "no_cuda": (True, "train.use_cpu", True),
        "resume_from_checkpoint": (True, "run.resume", "auto"),
        "overwrite_output_dir": (True, "run.resume", "never"),
    },
}
"""Origin -> key there -> its value, the key here, the value here, and what else the file states."""

TABLES = {**{origin.title: origin.keys for origin in ORIGINS}, "arguments": ARGUMENTS}
LEAST["arguments"] = LEAST["TRL"]
ODD = [None, True, 2.5, "text", [], [1], {"a": 1}]
"""Values of every kind, most of them wrong for any key."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    registered = json.dumps({"pairs": {"file_name": "p.jsonl"}})
    (tmp_path / "mine" / "dataset_info.json").write_text(registered)

    def call(values: Mapping[str, Any]) -> Migration:
        path = tmp_path / "theirs.json"
        path.write_text(json.dumps(values))
        return migrate(path)

    return call


def get(recipe: str, path: str) -> Any:
    found = yaml.safe_load(recipe)
    for part in path.split("."):
        assert part in found, f"{path} is not in\n{recipe}"
        found = found[part]
    return found


@pytest.mark.parametrize("title", TABLES)
def test_every_key_of_a_table_is_left_out_or_has_an_expectation_here(title: str) -> None:
    carried = {key for key, entry in TABLES[title].items() if entry.ours}
    assert set(CARRIED[title]) == carried


@pytest.mark.parametrize(
    ("title", "key"),
    [(title, key) for title, keys in CARRIED.items() for key in keys],
    ids=[f"{title}-{key}" for title, keys in CARRIED.items() for key in keys],
)
def test_a_key_is_carried_over(run: Run, title: str, key: str) -> None:
    value, ours, expected, *context = CARRIED[title][key]
    result = run({**LEAST[title], **(context[0] if context else {}), key: value})
    assert get(result.recipe, ours) == expected


@pytest.mark.parametrize(
    ("title", "key"),
    [(title, key) for title, table in TABLES.items() for key in table if not table[key].ours],
    ids=[f"{title}-{key}" for title, t in TABLES.items() for key in t if not t[key].ours],
)
def test_a_key_that_is_left_out_has_a_note(run: Run, title: str, key: str) -> None:
    (text,) = (note.text for note in run({**LEAST[title], key: True}).notes if note.key == key)
    assert text == TABLES[title][key].text
    (text,) = (note.text for note in run({**LEAST[title], key: None}).notes if note.key == key)
    assert text == "it is off, and there is nothing of it here"


@pytest.mark.parametrize("title", TABLES)
def test_no_value_breaks_it_and_none_goes_without_a_word(run: Run, title: str) -> None:
    least = LEAST[title]
    for key in TABLES[title]:
        others = {name: value for name, value in least.items() if name != key}
        try:
            without = run(others).recipe
        except RecipeError:
            without = ""
        for value in ODD:
            try:
                result = run({**others, key: value})
            except RecipeError:
                continue
            noted = key in {note.key for note in result.notes}
            assert noted or result.recipe != without, f"{key}: {value!r}"


def test_an_argument_of_the_trainer_passes_through(run: Run) -> None:
    known = set(training_arguments()) - set(ARGUMENTS)
    assert {"learning_rate", "weight_decay", "report_to", "ddp_timeout"} <= known
    result = run({**LEAST["TRL"], "weight_decay": 0.1, "report_to": ["wandb"], "ddp_timeout": 9})
    train = get(result.recipe, "train")
    assert (train["weight_decay"], train["report_to"], train["ddp_timeout"]) == (0.1, ["wandb"], 9)


def test_what_transformers_dropped_is_not_one_of_its_arguments() -> None:
    gone = {key for key, entry in ARGUMENTS.items() if entry.text.startswith("transformers 5 has")}
    assert len(gone) > 10
    assert not gone & training_arguments()


@pytest.mark.parametrize(
    ("key", "near"),
    [("lora_rnak", "lora_rank"), ("learning_rat", "learning_rate"), ("zzz", "")],
    ids=["a key of the table", "an argument", "nothing near"],
)
def test_an_unknown_key_is_noted_with_the_nearest_name(run: Run, key: str, near: str) -> None:
    (note,) = (note for note in run({**LEAST["LLaMA-Factory"], key: 1}).notes if note.key == key)
    assert "nothing is known of it" in note.text
    assert note.text.endswith(f"did you mean '{near}'?" if near else "nothing is known of it")


def test_the_names_of_uni_dpo_are_those_that_python_understands() -> None:
    for origin in ORIGINS[:2]:
        for key, entry in origin.keys.items():
            if key in OFFICIAL_NAMES:
                assert entry.ours == f"loss.{OFFICIAL_NAMES[key]}"
    assert set(UNI_DPO) <= set(OFFICIAL_NAMES)

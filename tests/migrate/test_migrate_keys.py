"""Every key of every table: its value in the recipe, or its note."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from unidpo_mm.config import Recipe
from unidpo_mm.config.loss_aliases import OFFICIAL_NAMES, TRL_LOSSES
from unidpo_mm.config.training_arguments import training_arguments
from unidpo_mm.errors import RecipeError
from unidpo_mm.migrate import Migration, migrate, trainer_arguments
from unidpo_mm.migrate.losses import load_losses
from unidpo_mm.migrate.migration import FRAMEWORKS

Run = Callable[[Mapping[str, Any]], Migration]
MINIMAL: dict[str, dict[str, Any]] = {
    "LLaMA-Factory": {"model_name_or_path": "a/b", "stage": "dpo", "dataset": "pairs"},
    "the official code": {"model_name_or_path": "a/b", "dataset_mixer": {"a/c": 1.0}},
    "TRL": {"model_name_or_path": "a/b", "dataset_name": "a/c"},
}
"""The shortest file of each framework."""

PEFT = {"use_peft": True}
LORA = {
    "use_peft": (True, "model.lora.r", 16),
    "lora_r": (4, "model.lora.r", 4, PEFT),
    "lora_alpha": (4, "model.lora.alpha", 4, PEFT),
    "lora_dropout": (0.1, "model.lora.dropout", 0.1, PEFT),
    "lora_target_modules": (["k_proj"], "model.lora.targets", ["k_proj"], PEFT),
    "lora_modules_to_save": (["lm_head"], "model.lora.modules_to_save", ["lm_head"], PEFT),
    "use_dora": (True, "model.lora.dora", True, PEFT),
    "use_rslora": (True, "model.lora.rslora", True, PEFT),
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

EXPECTED: dict[str, dict[str, tuple[Any, ...]]] = {
    "LLaMA-Factory": {
        "model_name_or_path": ("x/y", "model.name_or_path", "x/y"),
        "trust_remote_code": (True, "model.trust_remote_code", True),
        "model_revision": ("v1", "model.init_kwargs.revision", "v1"),
        "flash_attn": ("fa2", "model.attn_implementation", "flash_attention_2"),
        "enable_liger_kernel": (True, "train.use_liger_kernel", True),
        "image_max_pixels": (5000, "model.image_max_size", "5000 pixels"),
        "image_min_pixels": (2000, "model.image_min_size", "2000 pixels"),
        "video_fps": (1.0, "data.video_fps", 1.0),
        "video_maxlen": (16, "data.video_max_frames", 16),
        "video_max_pixels": (5000, "model.video_max_pixels", 5000),
        "stage": ("dpo", "loss.name", "dpo"),
        "finetuning_type": ("full", "model.lora", None),
        "lora_rank": (4, "model.lora.r", 4),
        "lora_alpha": (3, "model.lora.alpha", 3),
        "lora_dropout": (0.1, "model.lora.dropout", 0.1),
        "lora_target": ("q_proj, v_proj", "model.lora.targets", ["q_proj", "v_proj"]),
        "additional_target": ("lm_head", "model.lora.modules_to_save", ["lm_head"]),
        "use_dora": (True, "model.lora.dora", True),
        "use_rslora": (True, "model.lora.rslora", True),
        "pissa_init": (True, "model.lora.init", "pissa_niter_16"),
        "pissa_iter": (-1, "model.lora.init", "pissa", {"pissa_init": True}),
        "quantization_bit": (4, "model.quantization.bits", 4),
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
        "enable_thinking": (False, "model.chat_template_kwargs", {"enable_thinking": False}),
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
        "ld_alpha": (0.3, "loss.ld_alpha", 0.3),
        "kto_chosen_weight": (1.5, "loss.desirable_weight", 1.5, {"stage": "kto"}),
        "kto_rejected_weight": (1.5, "loss.undesirable_weight", 1.5, {"stage": "kto"}),
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
        "discopop_tau": (0.1, "loss.discopop_tau", 0.1, {"loss_type": "discopop"}),
        "desirable_weight": (1.5, "loss.desirable_weight", 1.5),
        "undesirable_weight": (1.5, "loss.undesirable_weight", 1.5),
        "f_divergence_type": ("js_divergence", "loss.divergence", "js"),
        "f_alpha_divergence_coef": (
            0.7,
            "loss.alpha",
            0.7,
            {"f_divergence_type": "alpha_divergence"},
        ),
        "ld_alpha": (0.3, "loss.ld_alpha", 0.3),
        "use_weighting": (True, "loss.name", "wpo"),
        "bf16": (False, "train.bf16", False),
        "gradient_checkpointing": (False, "train.activation_checkpointing", False),
        "logging_steps": (3, "train.logging_steps", 3),
        "precompute_ref_log_probs": (True, "train.reference", "cached"),
        "resume_from_checkpoint": (None, "run.resume", "never"),
    },
    "Trainer": {
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
"""Framework -> key -> its value, key path and value in the recipe, and other values of the file."""

TABLES = {item.title: item.keys for item in FRAMEWORKS} | {"Trainer": trainer_arguments.KEYS}
MINIMAL["Trainer"] = MINIMAL["TRL"]
ODD = [None, True, 2.5, "text", [], [1], {"a": 1}]
"""Values of every kind, most of them wrong for any key."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    registered = json.dumps({"pairs": {"file_name": "p.jsonl"}})
    (tmp_path / "mine" / "dataset_info.json").write_text(registered)

    def call(values: Mapping[str, Any]) -> Migration:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(values))
        return migrate(path)

    return call


def get(recipe: str, path: str) -> Any:
    value = yaml.safe_load(recipe)
    for part in path.split("."):
        assert part in value, f"{path} is not in\n{recipe}"
        value = value[part]
    return value


def test_tables_refer_to_converters_and_sections_that_exist() -> None:
    for framework in FRAMEWORKS:
        converters = {*framework.converters, *trainer_arguments.CONVERTERS}
        for key, entry in {**trainer_arguments.KEYS, **framework.keys}.items():
            assert not entry.group or entry.group in converters, key
            assert not entry.convert or entry.convert in trainer_arguments.CONVERT, key
            assert not entry.target or entry.target.split(".")[0] in Recipe.model_fields, key


@pytest.mark.parametrize("title", TABLES)
def test_every_key_has_a_note_or_an_expectation(title: str) -> None:
    assert set(EXPECTED[title]) == {key for key, entry in TABLES[title].items() if entry.target}


@pytest.mark.parametrize(
    ("title", "key"),
    [(title, key) for title, keys in EXPECTED.items() for key in keys],
    ids=[f"{title}-{key}" for title, keys in EXPECTED.items() for key in keys],
)
def test_keys_are_migrated(run: Run, title: str, key: str) -> None:
    value, target, expected, *context = EXPECTED[title][key]
    result = run({**MINIMAL[title], **(context[0] if context else {}), key: value})
    assert get(result.recipe, target) == expected


@pytest.mark.parametrize(
    ("title", "key"),
    [(title, key) for title, table in TABLES.items() for key in table if not table[key].target],
    ids=[f"{title}-{key}" for title, t in TABLES.items() for key in t if not t[key].target],
)
def test_keys_without_counterpart_have_a_note(run: Run, title: str, key: str) -> None:
    (text,) = (note.text for note in run({**MINIMAL[title], key: True}).notes if note.key == key)
    assert text == TABLES[title][key].note
    (text,) = (note.text for note in run({**MINIMAL[title], key: None}).notes if note.key == key)
    assert text == "disabled, so there is nothing to migrate"


@pytest.mark.parametrize("title", TABLES)
@pytest.mark.parametrize(
    "every", [pytest.param(1, marks=pytest.mark.slow), 5], ids=["each key", "some keys"]
)
def test_no_value_crashes_or_is_dropped_silently(run: Run, title: str, every: int) -> None:
    least = MINIMAL[title]
    for key in list(TABLES[title])[::every]:
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


def test_trainer_arguments_keep_their_names(run: Run) -> None:
    names = set(training_arguments()) - set(trainer_arguments.KEYS)
    assert {"learning_rate", "weight_decay", "report_to", "ddp_timeout"} <= names
    result = run({**MINIMAL["TRL"], "weight_decay": 0.1, "report_to": ["wandb"], "ddp_timeout": 9})
    train = get(result.recipe, "train")
    assert (train["weight_decay"], train["report_to"], train["ddp_timeout"]) == (0.1, ["wandb"], 9)


def test_removed_arguments_are_not_in_transformers() -> None:
    removed = {
        key
        for key, entry in trainer_arguments.KEYS.items()
        if entry.note.startswith("transformers 5 has")
    }
    assert len(removed) > 10
    assert not removed & set(training_arguments())


@pytest.mark.parametrize(
    ("key", "near"),
    [("lora_rnak", "lora_rank"), ("learning_rat", "learning_rate"), ("zzz", "")],
    ids=["a key of the table", "an argument", "nothing near"],
)
def test_unknown_keys_have_a_note_with_a_suggestion(run: Run, key: str, near: str) -> None:
    (note,) = (note for note in run({**MINIMAL["LLaMA-Factory"], key: 1}).notes if note.key == key)
    assert note.text.startswith("unknown key")
    assert note.text.endswith(f"did you mean '{near}'?" if near else "not migrated")


def test_uni_dpo_names_are_those_of_the_config() -> None:
    for framework in FRAMEWORKS[:2]:
        for key, entry in framework.keys.items():
            if key in OFFICIAL_NAMES:
                assert entry.target == f"loss.{OFFICIAL_NAMES[key]}"
    keys = set(load_losses("llama_factory")["uni_dpo"].keys) & set(OFFICIAL_NAMES)
    assert set(UNI_DPO) == keys - {"dpo_average_log_prob"}


def test_losses_of_trl_are_those_of_the_config() -> None:
    rules = load_losses("trl")
    others = {name: (rule.name, rule.fixed) for name, rule in rules.items() if name != rule.name}
    assert others == TRL_LOSSES

"""LLaMA-Factory's losses, including those of the official multimodal code."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from migrations import migrate_text

from unidpo_mm.config import load_recipe

SHORT = "model_name_or_path: a/b\nstage: dpo\ndataset: pairs\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


migrated = partial(migrate_text, framework="LLaMA-Factory")


@pytest.mark.parametrize(
    ("lines", "name", "parameters"),
    [
        ("pref_loss: simpo", "simpo", {"beta": 0.1, "simpo_gamma": 0.5}),
        ("pref_loss: orpo", "orpo", {"beta": 0.1}),
        ("pref_loss: ipo", "ipo", {"beta": 0.1, "length_norm": True}),
        (
            "pref_loss: uni_dpo\npref_beta: 2.0\npref_ftx: 0.1",
            "uni_dpo",
            {
                "beta": 2.0,
                "eta": 0.7,
                "tau_ref": 2.0,
                "gamma": 3.0,
                "nll_lambda": 0.001,
                "tau_good": 2.5,
                "length_norm": True,
                "sft_weight": 0.1,
            },
        ),
        (
            "pref_ftx: 0.5\npref_bco_weight: 0.25",
            "mpo",
            {
                "losses": {"dpo": 0.8, "bco": 0.2, "sft": 0.5},
                "parameters": {
                    "dpo": {"beta": 0.1, "label_smoothing": 0.0, "length_norm": False},
                    "bco": {"beta": 0.1, "length_norm": False},
                    "sft": {"length_norm": True},
                },
            },
        ),
        (
            "dpo_average_log_prob: true\ndpo_label_smoothing: 0.1",
            "dpo",
            {"beta": 0.1, "label_smoothing": 0.1, "length_norm": True},
        ),
        (
            "uni_dpo_tau_ref: 2.0",
            "dpo",
            {"beta": 0.1, "label_smoothing": 0.0, "length_norm": True},
        ),
    ],
    ids=["simpo", "orpo", "ipo", "uni_dpo", "sft and bco", "averaged dpo", "the official fork"],
)
def test_losses(directory: Path, lines: str, name: str, parameters: dict[str, Any]) -> None:
    recipe, _ = migrated(directory, SHORT + lines + "\n")
    assert recipe.loss.name == name
    assert recipe.loss.parameters == parameters


def test_official_multimodal_run_has_the_released_settings(directory: Path) -> None:
    """The arguments of the released script, as YAML; see configs/paper/qwen2_vl_2b.yaml."""
    recipe, _ = migrated(
        directory,
        "model_name_or_path: m\nstage: dpo\nflash_attn: fa2\ndo_train: true\n"
        "finetuning_type: full\npref_beta: 2.0\npref_loss: uni_dpo\ndpo_average_log_prob: true\n"
        "dpo_label_smoothing: 0\ndataset: d\ntemplate: qwen2_vl\nimage_max_pixels: 589824\n"
        "warmup_ratio: 0\ncutoff_len: 4096\nmax_samples: 10000000\nlearning_rate: 6.0e-6\n"
        "bf16: true\nlr_scheduler_type: cosine\nnum_train_epochs: 1\n",
    )
    paper = load_recipe(Path(__file__).parents[2] / "configs" / "paper" / "qwen2_vl_2b.yaml")
    parameters = {**paper.loss.parameters}
    assert parameters.pop("detach_weights") is False  # our default; the code has no key for it
    assert recipe.loss.parameters == parameters
    assert recipe.model.freeze == paper.model.freeze
    assert recipe.model.image_max_size == paper.model.image_max_size
    assert recipe.model.dtype == paper.model.dtype
    assert recipe.data.max_length == paper.data.max_length
    for key in ("learning_rate", "warmup_steps", "activation_checkpointing", "lr_scheduler_type"):
        assert recipe.train.arguments[key] == paper.train.arguments[key]

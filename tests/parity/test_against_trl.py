"""The same pairs, model and settings have the same losses as in TRL, in every step.

`make test-parity` installs TRL separately. Intended differences are not compared: TRL's `sft` is a
mean over the tokens of a batch, ours over responses; its `use_weighting` also divides by the
concentration of the policy.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from trainers import config

from unidpo_mm import UniDPOTrainer

# warnings about calls of TRL
pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("default::FutureWarning")]

Checkpoint = Callable[[str], Path]

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "report_to": "none",
    "disable_tqdm": True,
    "save_strategy": "no",
    "logging_steps": 1,
    "optim": "sgd",
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "weight_decay": 0.0,
    "per_device_train_batch_size": 4,
    "max_steps": 4,
}
"""All pairs in every step, so that the order of rows does not matter."""

LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {},
    "sigmoid_norm": {"beta": 2.0},
    "hinge": {"beta": 0.5},
    "ipo": {},
    "robust": {"label_smoothing": 0.1},
    "bco_pair": {},
    "exo_pair": {"label_smoothing": 0.1},
    "nca_pair": {},
    "sppo_hard": {"beta": 0.5, "learning_rate": 1e-3},  # a squared loss diverges sooner
    "aot": {"label_smoothing": 0.1},
    "aot_unpaired": {},
    "apo_zero": {},
    "apo_down": {},
    "discopop": {},
}
DIVERGENCES = {
    "forward_kl": {"divergence": "forward_kl"},
    "js_divergence": {"divergence": "js"},
    "alpha_divergence": {"divergence": "alpha", "alpha": 0.5},
}


def text_rows(*, conversational: bool) -> list[dict[str, Any]]:
    responses = [
        ("The answer is 7.", "Eight"),
        ("A red square and a blue circle", "Two"),
        ("Hello, world!", "Nothing at all, is there?"),
        ("There are 12", "How many are there? Compute 3 + 4"),
    ]
    rows = []
    for number, (chosen, rejected) in enumerate(responses):
        prompt = f"What is {number}?"
        if conversational:
            rows.append(
                {
                    "prompt": [{"role": "user", "content": prompt}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
            )
        else:
            rows.append({"prompt": prompt, "chosen": " " + chosen, "rejected": " " + rejected})
    return rows


def image_rows() -> list[dict[str, Any]]:
    rows = text_rows(conversational=True)
    return [{**row, "images": [make_image(number)]} for number, row in enumerate(rows)]


def trl_losses(folder: Path, rows: Any, tmp_path: Path, **settings: Any) -> list[float]:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    args = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        **{**SETTINGS, **settings},
    )
    trainer = DPOTrainer(model=str(folder), args=args, train_dataset=Dataset.from_list(rows))
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def our_losses(folder: Path, rows: Any, tmp_path: Path, **settings: Any) -> list[float]:
    args = config(tmp_path / "ours", **{**SETTINGS, **settings})
    trainer = UniDPOTrainer(str(folder), args, train_dataset=rows)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("loss_type", LOSSES)
def test_the_first_losses_of_every_shared_loss_are_trls(
    checkpoint: Checkpoint, tmp_path: Path, loss_type: str
) -> None:
    folder, rows = checkpoint("llama"), text_rows(conversational=True)
    settings = {"loss_type": loss_type, **LOSSES[loss_type]}
    theirs = trl_losses(folder, rows, tmp_path, **settings)
    ours = our_losses(folder, rows, tmp_path, **settings)
    assert len(theirs) == 4
    assert theirs[0] != pytest.approx(theirs[-1], abs=1e-3)  # something was learned
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_the_first_losses_of_another_divergence_are_trls(
    checkpoint: Checkpoint, tmp_path: Path, divergence: str
) -> None:
    folder, rows = checkpoint("llama"), text_rows(conversational=True)
    theirs = trl_losses(folder, rows, tmp_path, f_divergence_type=divergence)
    loss = {"name": "f_dpo", "beta": 0.1, **DIVERGENCES[divergence]}
    ours = our_losses(folder, rows, tmp_path, loss=loss)
    assert theirs[0] != pytest.approx(theirs[-1], abs=1e-3)
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_the_first_losses_of_ld_dpo_are_trls(
    checkpoint: Checkpoint, tmp_path: Path, alpha: float
) -> None:
    folder, rows = checkpoint("llama"), text_rows(conversational=True)
    theirs = trl_losses(folder, rows, tmp_path, ld_alpha=alpha)
    ours = our_losses(folder, rows, tmp_path, loss={"name": "ld_dpo", "ld_alpha": alpha})
    assert theirs[0] != pytest.approx(theirs[-1], abs=1e-3)
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_plain_strings_are_the_same_without_a_template(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder, rows = checkpoint("llama"), text_rows(conversational=False)
    theirs = trl_losses(folder, rows, tmp_path)
    ours = our_losses(folder, rows, tmp_path, loss_type="sigmoid", prompt_style="raw")
    assert ours == pytest.approx(theirs, abs=1e-4)
    templated = our_losses(folder, rows, tmp_path, loss_type="sigmoid")
    assert templated != pytest.approx(theirs, abs=1e-4)  # as documented


@pytest.mark.parametrize("loss_type", ["kto", "apo_zero_unpaired"])
@pytest.mark.parametrize("model_type", ["llama", "qwen2_vl"])
def test_the_first_losses_of_labeled_responses_are_trls(
    checkpoint: Checkpoint, tmp_path: Path, loss_type: str, model_type: str
) -> None:
    """Both compare a row with the response of the row before, the first one with the last."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    folder = checkpoint(model_type)
    pairs = text_rows(conversational=True) if model_type == "llama" else image_rows()
    rows = [
        {
            **{name: row[name] for name in ("prompt", "images") if name in row},
            "completion": row["chosen" if number % 2 else "rejected"],
            "label": bool(number % 2),
        }
        for number, row in enumerate(pairs)
    ]
    weights = {"desirable_weight": 1.5, "undesirable_weight": 0.75}
    settings = {**SETTINGS, "beta": 0.3, "learning_rate": 0.2}
    args = KTOConfig(
        output_dir=str(tmp_path / "trl"),
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        loss_type=loss_type,
        **weights,
        **settings,
    )
    trainer = KTOTrainer(model=str(folder), args=args, train_dataset=Dataset.from_list(rows))
    trainer.train()
    theirs = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    ours = our_losses(
        folder, rows, tmp_path, loss_type=loss_type, loss_kwargs=weights, freeze=[], **settings
    )
    assert theirs[0] != pytest.approx(theirs[-1], abs=1e-3)
    assert ours == pytest.approx(theirs, abs=1e-4)
    if loss_type == "kto":
        other = our_losses(
            folder, rows[::-1], tmp_path, loss_type=loss_type, loss_kwargs=weights, **settings
        )
        assert other != pytest.approx(theirs, abs=1e-5)  # with other mismatched responses


@pytest.mark.parametrize("model_type", ["qwen2_vl", "llava"])
def test_images_give_trls_losses_too(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str
) -> None:
    folder, rows = checkpoint(model_type), image_rows()
    theirs = trl_losses(folder, rows, tmp_path)
    ours = our_losses(folder, rows, tmp_path, loss_type="sigmoid", freeze=[])
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_the_comparison_detects_another_beta(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder, rows = checkpoint("llama"), text_rows(conversational=True)
    theirs = trl_losses(folder, rows, tmp_path)
    ours = our_losses(folder, rows, tmp_path, loss_type="sigmoid", beta=0.11)
    assert ours != pytest.approx(theirs, abs=1e-4)

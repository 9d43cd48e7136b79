"""Layers below the first trained one run once for policy and reference, with equal results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import mixed_rows
from peft import LoraConfig
from torch import Tensor
from trainers import config, make_trainer, state_of

from unidpo_mm.kernels.last_layer import decoder_layers
from unidpo_mm.modeling import shared_layers as shared_layers_module
from unidpo_mm.modeling.logp_model import unwrap_peft
from unidpo_mm.training import preparing, startup_checks

Checkpoint = Callable[[str], Path]

UPPER = r".*(language_model|model)\.layers\.1\..*(q_proj|down_proj)"
"""The last of the two layers of tiny models."""


def trained(model: Path, output: Path, *, targets: str = UPPER, **settings: Any) -> Any:
    images = "vl" in model.name or "llava" in model.name
    args = config(output, loss_type="dpo", learning_rate=0.5, **settings)
    lora = LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM")
    result = make_trainer(model, mixed_rows(images=images), args, peft_config=lora)
    result.train()
    return result


def logged_losses(trainer: Any) -> list[float]:
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def layer_calls(run: Callable[[], Any], trainer: Any) -> list[int]:
    """Return how often the computation of each decoder layer starts while a function runs."""
    layers = decoder_layers(unwrap_peft(trainer.model.model))
    calls = [0] * len(layers)

    def count(number: int) -> Callable[..., None]:
        def hook(*args: Any) -> None:
            calls[number] += 1

        return hook

    norms = [next(m for m in layer.modules() if "Norm" in type(m).__name__) for layer in layers]
    handles = [norm.register_forward_hook(count(n)) for n, norm in enumerate(norms)]
    run()
    for handle in handles:
        handle.remove()
    return calls


@pytest.mark.parametrize(
    ("model_type", "checkpointing"),
    [
        ("llava", False),
        ("qwen3_vl", True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("qwen3", False), ("qwen3", True), ("llava", True), ("qwen3_vl", False))
        ),
    ],
)
def test_results_equal_those_of_separate_passes_to_the_bit(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_type: str,
    checkpointing: bool,
) -> None:
    options = {"activation_checkpointing": checkpointing}
    shared = trained(checkpoint(model_type), tmp_path / "shared", **options)
    assert len(shared.shared_layers) == 1
    monkeypatch.setattr(preparing, "layers_to_share", lambda *args: None)
    separate = trained(checkpoint(model_type), tmp_path / "separate", **options)
    assert separate.shared_layers is None
    expected = state_of(separate)
    for name, tensor in state_of(shared).items():
        assert torch.equal(tensor, expected[name]), name
    losses = [
        [log["loss"] for log in t.state.log_history if "loss" in log] for t in (shared, separate)
    ]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


def test_the_layers_run_once_in_a_step(checkpoint: Checkpoint, tmp_path: Path) -> None:
    result = trained(checkpoint("qwen3"), tmp_path)
    batch = next(iter(result.get_train_dataloader()))["batch"]
    assert layer_calls(lambda: result.preference_step(result.model, batch), result) == [1, 2]
    result.shared_layers = None
    assert layer_calls(lambda: result.preference_step(result.model, batch), result) == [2, 2]


@pytest.mark.parametrize(
    ("targets", "settings"),
    [
        (UPPER.replace("1", "[01]"), {}),  # all layers train
        (UPPER + "|.*embed_tokens", {}),
        (UPPER, {"reference": "frozen_copy"}),  # a model of its own
        (UPPER, {"disable_dropout": False}),
    ],
)
def test_layers_that_may_differ_are_not_shared(
    checkpoint: Checkpoint, tmp_path: Path, targets: str, settings: dict[str, Any]
) -> None:
    assert trained(checkpoint("qwen3"), tmp_path, targets=targets, **settings).shared_layers is None


def test_layers_whose_results_would_change_are_not_shared(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = shared_layers_module._record

    def imprecise(recorded: list[Tensor], run: Any) -> Any:
        forward = record(recorded, run)
        return lambda *args, **kwargs: forward(*args, **kwargs) * (1.01 if recorded else 1.0)

    monkeypatch.setattr(shared_layers_module, "_record", imprecise)
    assert trained(checkpoint("qwen3"), tmp_path).shared_layers is None
    assert startup_checks.SEPARATE in caplog.text

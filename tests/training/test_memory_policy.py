"""As few layers are checkpointed as the activation memory allows, without changing results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import mixed_rows
from trainers import config, make_trainer, state_of

from unidpo_mm import UniDPOTrainer
from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import RecipeError
from unidpo_mm.modeling.activation_memory import LayerMemory
from unidpo_mm.training.callbacks import max_tokens, measure_first_batch

Checkpoint = Callable[[str], Path]


def checkpointed(trainer: UniDPOTrainer) -> list[bool]:
    inner: Any = trainer.model.model
    inner = getattr(inner, "get_base_model", lambda: inner)()
    return [layer.gradient_checkpointing for layer in inner.get_decoder().layers]


def test_as_few_first_layers_as_possible_are_checkpointed() -> None:
    memory = LayerMemory(tokens=100, kept=(1000, 1000, 1000, 1000), inputs=100)
    assert memory.layers_to_checkpoint(4000, tokens=100) == 0
    assert memory.layers_to_checkpoint(3999, tokens=100) == 1
    assert memory.layers_to_checkpoint(2200, tokens=100) == 2
    assert memory.layers_to_checkpoint(2199, tokens=100) == 3
    assert memory.layers_to_checkpoint(1, tokens=100) == 4
    assert memory.layers_to_checkpoint(4400, tokens=200) == 2  # twice the tokens, twice the bytes


def half_of_the_layers(model: Path, rows: Any, folder: Path, lora: bool) -> float:
    """Return the bytes that just suffice if the first half of the layers is checkpointed."""
    args = config(folder, layout="joined")
    trainer = make_trainer(model, rows, args, peft_config=LoraOptions(r=4) if lora else None)
    trainer.model_wrapped = trainer.model
    trainer.model.train()
    measured = measure_first_batch(trainer)
    tokens = max(max_tokens(trainer), measured.tokens)
    return measured.needed(len(measured.kept) // 2) * tokens / measured.tokens + 1


@pytest.mark.parametrize(
    ("model_type", "lora"),
    [
        ("llama", False),
        ("llava", True),
        ("qwen2_vl", False),
        pytest.param("llama", True, marks=pytest.mark.slow),
        pytest.param("llava", False, marks=pytest.mark.slow),
        pytest.param("qwen2_vl", True, marks=pytest.mark.slow),
    ],
)
def test_the_budget_determines_the_layers_and_does_not_change_results(
    checkpoint: Checkpoint, tmp_path: Path, model_type: str, lora: bool
) -> None:
    rows = mixed_rows(images=model_type != "llama")
    weights, chosen = [], []
    for memory in (None, "auto", "half", "1e-6"):
        if memory == "half":
            memory = str(half_of_the_layers(checkpoint(model_type), rows, tmp_path, lora) / 1e9)
        trainer = make_trainer(
            checkpoint(model_type),
            rows,
            config(tmp_path, memory=memory, optim="sgd", layout="joined"),
            peft_config=LoraOptions(r=4) if lora else None,
        )
        trainer.train()
        weights.append(state_of(trainer))
        chosen.append(checkpointed(trainer))
    layers = len(chosen[0])
    assert chosen[0] == chosen[1] == [False] * layers
    assert chosen[3] == [True] * layers
    assert chosen[2] == [True] * (layers // 2) + [False] * (layers - layers // 2)
    for other in weights[1:]:
        for name, value in weights[0].items():
            assert (other[name] - value).abs().max() < 1e-6, name


def test_the_measured_bytes_are_those_that_autograd_keeps(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """With half of the bytes of all layers, about half of the layers need no checkpointing."""
    trainer = make_trainer(checkpoint("llama"), mixed_rows(images=False), config(tmp_path))
    trainer.model_wrapped = trainer.model
    trainer.model.train()
    measured = measure_first_batch(trainer)
    assert len(measured.kept) == len(checkpointed(trainer))
    hidden = trainer.model.config.hidden_size * 4
    assert measured.inputs == measured.tokens * hidden
    for kept in measured.kept:
        assert 8 * measured.inputs < kept < 60 * measured.inputs
    trainer.train()  # measuring has removed its hooks


@pytest.mark.parametrize("memory", ["much", "-1", "0", "nan", "inf"])
def test_invalid_memory_budgets_are_refused(
    checkpoint: Checkpoint, tmp_path: Path, memory: str
) -> None:
    with pytest.raises(RecipeError, match=r"memory: found .* Use auto, or gigabytes"):
        make_trainer(checkpoint("llama"), mixed_rows(images=False), config(tmp_path, memory=memory))

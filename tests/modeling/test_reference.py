"""Kinds of references: the initial policy, without gradient, dropout or drift."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import batch_of, build_reference, load_tiny, logp_model_of, mixed_rows

from unidpo_mm.config import LoraOptions
from unidpo_mm.errors import ModelError
from unidpo_mm.modeling.load import LoadedModel
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.parts import add_lora, freeze_parts
from unidpo_mm.modeling.references.kinds import FrozenCopy, LoraOff
from unidpo_mm.plugins import load_family

Checkpoint = Callable[[str], Path]


def with_lora(folder: Path, **settings: Any) -> tuple[LoadedModel, LogpModel]:
    loaded = load_tiny(folder)
    model = add_lora(loaded.model, loaded.family, LoraOptions(r=4, **settings))
    return loaded, LogpModel(model)


def train_a_little(logp_model: LogpModel, loaded: LoadedModel) -> None:
    optimizer = torch.optim.SGD([p for p in logp_model.parameters() if p.requires_grad], lr=0.5)
    batch = batch_of(loaded, mixed_rows(images=False))
    for _ in range(3):
        optimizer.zero_grad()
        (-compute_logps(logp_model, loaded.adapter, batch).mean()).backward()
        optimizer.step()


@pytest.mark.parametrize("kind", ["frozen_copy", "lora_off"])
@pytest.mark.parametrize("model_type", ["llama", "llava"])
def test_the_reference_equals_the_initial_policy_before_and_after_training(
    checkpoint: Checkpoint, model_type: str, kind: Any
) -> None:
    loaded, logp_model = with_lora(checkpoint(model_type))
    base = load_tiny(checkpoint(model_type))
    batch = batch_of(loaded, mixed_rows(images=model_type == "llava"))
    with torch.no_grad():
        expected = compute_logps(logp_model_of(base), base.adapter, batch)
    reference = build_reference(kind, logp_model, loaded.adapter)
    assert reference is not None
    before = reference.token_logps(logp_model, batch)
    train_a_little(logp_model, loaded)
    after = reference.token_logps(logp_model, batch)
    policy = compute_logps(logp_model, loaded.adapter, batch)
    assert torch.equal(before, expected)
    assert torch.equal(after, expected)
    assert (policy - expected).abs().max() > 1e-2  # the policy has changed
    assert not before.requires_grad
    assert policy.requires_grad


def test_the_frozen_copy_does_not_change_when_all_weights_train(
    checkpoint: Checkpoint,
) -> None:
    loaded = load_tiny(checkpoint("qwen3"))
    logp_model = LogpModel(loaded.model).train()
    reference = build_reference("auto", logp_model, loaded.adapter)
    assert isinstance(reference, FrozenCopy)
    batch = batch_of(loaded, mixed_rows(images=False))
    before = reference.token_logps(logp_model, batch)
    train_a_little(logp_model, loaded)
    assert torch.equal(reference.token_logps(logp_model, batch), before)
    assert not torch.allclose(compute_logps(logp_model, loaded.adapter, batch), before, atol=1e-2)
    assert not any(p.requires_grad for p in reference.logp_model.parameters())
    assert all(p.grad is None for p in reference.logp_model.parameters())


def test_the_reference_has_no_dropout_and_the_policy_stays_in_training_mode(
    tmp_path: Path,
) -> None:
    load_family("text").tiny(tmp_path, model_type="gpt2", resid_pdrop=0.4)
    for kind in ("frozen_copy", "lora_off"):
        loaded, logp_model = with_lora(tmp_path, dropout=0.5, targets=["c_attn"])
        logp_model.train()
        reference = build_reference(kind, logp_model, loaded.adapter)
        assert reference is not None
        batch = batch_of(loaded, mixed_rows(images=False))
        assert torch.equal(*(reference.token_logps(logp_model, batch) for _ in range(2)))
        assert logp_model.training
        assert all(m.training for m in logp_model.modules())
        noisy = [compute_logps(logp_model, loaded.adapter, batch).detach() for _ in range(2)]
        assert not torch.equal(*noisy)  # the policy still has its dropout


def test_lora_off_uses_the_initial_weights_of_modules_to_save(checkpoint: Checkpoint) -> None:
    loaded, logp_model = with_lora(checkpoint("llava"), modules_to_save=["projector"])
    reference = build_reference("auto", logp_model, loaded.adapter)
    assert isinstance(reference, LoraOff)
    batch = batch_of(loaded, mixed_rows(images=True))
    before = reference.token_logps(logp_model, batch)
    with torch.no_grad():
        for name, parameter in logp_model.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(1.0)
    assert torch.equal(reference.token_logps(logp_model, batch), before)
    assert not torch.allclose(compute_logps(logp_model, loaded.adapter, batch), before)


def test_lora_off_switches_the_lora_adapter_on_again(checkpoint: Checkpoint) -> None:
    loaded, logp_model = with_lora(checkpoint("llama"))
    names = [n for n, p in logp_model.named_parameters() if p.requires_grad]
    reference = build_reference("lora_off", logp_model, loaded.adapter)
    assert reference is not None
    train_a_little(logp_model, loaded)
    batch = batch_of(loaded, mixed_rows(images=False))
    policy = compute_logps(logp_model, loaded.adapter, batch)
    reference.token_logps(logp_model, batch)
    assert torch.equal(compute_logps(logp_model, loaded.adapter, batch), policy)
    assert [n for n, p in logp_model.named_parameters() if p.requires_grad] == names


# ---- the choice of a kind ----


def test_auto_is_lora_off_if_only_a_lora_adapter_trains(checkpoint: Checkpoint) -> None:
    loaded, logp_model = with_lora(checkpoint("llama"))
    assert isinstance(build_reference("auto", logp_model, loaded.adapter), LoraOff)


def test_auto_is_a_copy_if_other_weights_train(checkpoint: Checkpoint) -> None:
    loaded, logp_model = with_lora(checkpoint("llama"))
    logp_model.model.get_output_embeddings().weight.requires_grad_(True)
    assert isinstance(build_reference("auto", logp_model, loaded.adapter), FrozenCopy)
    with pytest.raises(ModelError, match=r"other weights than the LoRA adapter train \(.*lm_head"):
        build_reference("lora_off", logp_model, loaded.adapter)


def test_auto_is_a_copy_without_a_lora_adapter(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llava"))
    freeze_parts(loaded.model, loaded.family, None)
    logp_model = LogpModel(loaded.model)
    assert isinstance(build_reference("auto", logp_model, loaded.adapter), FrozenCopy)


def test_the_copy_shares_no_weight_with_the_policy(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    logp_model = LogpModel(loaded.model)
    reference = build_reference("frozen_copy", logp_model, loaded.adapter)
    assert isinstance(reference, FrozenCopy)
    ours = {p.data_ptr() for p in logp_model.parameters()}
    assert ours.isdisjoint(p.data_ptr() for p in reference.logp_model.parameters())
    assert all(p.requires_grad for p in logp_model.parameters())


def test_lora_off_without_a_lora_adapter_is_refused(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    with pytest.raises(ModelError, match=r"'lora_off' and the model has no LoRA"):
        build_reference("lora_off", LogpModel(loaded.model), loaded.adapter)


def test_none_is_refused_if_the_loss_needs_a_reference(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    logp_model = LogpModel(loaded.model)
    with pytest.raises(ModelError, match="the loss needs a reference"):
        build_reference("none", logp_model, loaded.adapter)

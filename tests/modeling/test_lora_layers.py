"""LoRA layers compute the same as PEFT's, in fewer passes over their activations."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import encoded, load_tiny, mixed_rows, relative_difference
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unidpo_mm.config import LoraOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.lora_layers import AddedLinear, FastLoraLinear, use_fast_lora
from unidpo_mm.modeling.parts import add_lora

Checkpoint = Callable[[str], Path]


class Operations(TorchDispatchMode):
    """A counter of operations, and of conversions of activations between number formats."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "_to_copy" and args[0].ndim == 3 and args[0].is_floating_point():
            name = "conversion"
        self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def model_with_adapter(folder: Path, *, dtype: str = "float32", **options: Any) -> tuple[Any, Any]:
    """Return a model with a LoRA adapter in float32; in half precision as in a run with `bf16`."""
    loaded = load_tiny(folder, dtype=dtype)
    torch.manual_seed(0)
    model: Any = add_lora(loaded.model, loaded.family, LoraOptions(r=2, **options))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return loaded, model


def step(
    loaded: Any, model: Any, *, autocast: bool = False
) -> tuple[Tensor, dict[str, Tensor], Counter[str]]:
    """Return log-probs, gradients and the operations of a forward, with checkpointed layers."""
    logp_model = LogpModel(model).train()
    logp_model.activation_checkpointing_enable()
    groups = encoded(loaded, mixed_rows(images=False))
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id)
    model.zero_grad()
    torch.manual_seed(1)  # of dropout
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), Operations() as operations:
        logps = compute_logps(logp_model, loaded.adapter, batch)
        forward = operations.counts.copy()
    (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return logps.detach(), grads, forward


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dropout": 0.3}, {"dora": True}])
def test_layers_compute_the_same_as_those_of_peft(
    checkpoint: Checkpoint, options: dict[str, Any]
) -> None:
    loaded, model = model_with_adapter(checkpoint("llama"), **options)
    model.double()
    logps, grads, before = step(loaded, model)
    use_fast_lora(model)
    fast, fast_grads, after = step(loaded, model)
    torch.testing.assert_close(fast, logps, rtol=0, atol=1e-11)
    assert relative_difference(fast_grads, grads) < 1e-11
    layers = 7 * loaded.model.config.num_hidden_layers
    dora = options.get("dora", False)
    assert len(grads) == (3 if dora else 2) * layers
    layers = 0 if dora else layers
    assert before["mul"] - after["mul"] == layers
    assert before["add"] - after["add"] == layers
    assert before["mm"] - after["mm"] == after["addmm"] - before["addmm"] == layers


def test_another_scaling_is_detected(checkpoint: Checkpoint) -> None:
    loaded, model = model_with_adapter(checkpoint("llama"))
    logps, _, _ = step(loaded, model)
    use_fast_lora(model)
    for module in model.modules():
        if isinstance(module, FastLoraLinear):
            module.scaling["default"] *= 1.01
    changed, _, _ = step(loaded, model)
    assert float((changed - logps).abs().max()) > 1e-3


def test_half_precision_rounds_less_often(checkpoint: Checkpoint) -> None:
    loaded, model = model_with_adapter(checkpoint("llama"), dtype="bfloat16")
    exact, exact_grads, _ = step(loaded, copy.deepcopy(model).float())
    logps, grads, before = step(loaded, model, autocast=True)
    use_fast_lora(model)
    fast, fast_grads, after = step(loaded, model, autocast=True)
    # to float32 and back, for seven linear layers
    layers = loaded.model.config.num_hidden_layers
    assert before["conversion"] - after["conversion"] == 2 * 7 * layers
    assert float((fast - exact).abs().mean()) < 1.1 * float((logps - exact).abs().mean())
    errors = [relative_difference(g, exact_grads) for g in (fast_grads, grads)]
    assert errors[0] < 1.1 * errors[1]


def test_without_autocast_inputs_are_converted(checkpoint: Checkpoint) -> None:
    _, model = model_with_adapter(checkpoint("llama"), dtype="bfloat16")
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        use_fast_lora(model)
        assert torch.equal(model(input_ids=ids).logits, expected)


def test_other_states_of_an_adapter_are_those_of_peft(checkpoint: Checkpoint) -> None:
    _, model = model_with_adapter(checkpoint("llama"))
    plain = copy.deepcopy(model)
    use_fast_lora(model)
    ids = torch.tensor([[3, 4, 5]])

    def compare() -> None:
        torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)

    with torch.no_grad():
        compare()
        copied = copy.deepcopy(model)
        assert any(isinstance(module, AddedLinear) for module in copied.modules())
        assert torch.equal(copied(input_ids=ids).logits, model(input_ids=ids).logits)
        with model.disable_adapter(), plain.disable_adapter():
            compare()
        for each in (model, plain):
            each.add_adapter("second", each.peft_config["default"])
            each.base_model.set_adapter(["default", "second"])
        compare()
        for each in (model, plain):
            each.set_adapter("second")
        compare()
        for each in (model, plain):
            each.set_adapter("default")
            each.merge_adapter()
        compare()
        merged, expected = (each.merge_and_unload() for each in (model, plain))
        assert torch.equal(merged(input_ids=ids).logits, expected(input_ids=ids).logits)

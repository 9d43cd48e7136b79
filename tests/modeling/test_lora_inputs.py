"""LoRA layers leave the conversion of their inputs to autocast, and compute the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from builders import encoded, load_tiny, mixed_rows, relative_difference
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unidpo_mm.config import LoraOptions
from unidpo_mm.data.collate import collate
from unidpo_mm.modeling.logp_model import LogpModel, compute_logps
from unidpo_mm.modeling.lora_inputs import convert_inputs_once
from unidpo_mm.modeling.parts import add_lora

Checkpoint = Callable[[str], Path]


class Conversions(TorchDispatchMode):
    """A counter of conversions of activations between float32 and bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        converts = func.overloadpacket.__name__ == "_to_copy" and args[0].ndim == 3
        self.count += converts and args[0].is_floating_point()
        return func(*args, **(kwargs or {}))


def half_precision_model(folder: Path) -> tuple[Any, Any]:
    """Return a model in bfloat16 with a LoRA adapter in float32, as in a run with `bf16`."""
    loaded = load_tiny(folder, dtype="bfloat16")
    torch.manual_seed(0)
    model: Any = add_lora(loaded.model, loaded.family, LoraOptions(r=2))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.3)
    return loaded, model


def step(loaded: Any, model: Any) -> tuple[Tensor, dict[str, Tensor], int]:
    """Return log-probs, gradients and the number of conversions, with checkpointed layers."""
    logp_model = LogpModel(model).train()
    logp_model.activation_checkpointing_enable()
    groups = encoded(loaded, mixed_rows(images=False))
    batch = collate(groups, pad_token_id=loaded.adapter.pad_token_id)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16), Conversions() as conversions:
        logps = compute_logps(logp_model, loaded.adapter, batch)
        forward = conversions.count
    (logps * torch.linspace(-1, 2, logps.numel())).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return logps.detach(), grads, forward


def test_inputs_are_not_converted_under_autocast(checkpoint: Checkpoint) -> None:
    loaded, model = half_precision_model(checkpoint("llama"))
    logps, grads, before = step(loaded, model)
    convert_inputs_once(model)
    once, once_grads, after = step(loaded, model)
    layers = loaded.model.config.num_hidden_layers
    # to float32 and back, for seven linear layers
    assert before - after == 2 * 7 * layers
    assert torch.equal(once, logps)
    assert relative_difference(once_grads, grads) < 1e-2  # sums of bfloat16 in another order


def test_without_autocast_inputs_are_converted(checkpoint: Checkpoint) -> None:
    _, model = half_precision_model(checkpoint("llama"))
    ids = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        convert_inputs_once(model)
        assert torch.equal(model(input_ids=ids).logits, expected)

"""Merge a LoRA adapter into its base model."""

import warnings
from typing import Any

from torch import nn

from ..errors import ModelError, Problem
from ..modeling.peft_models import adapter_tensors

__all__ = ["merge_adapter"]


def merge_adapter(policy: Any, where: str) -> Any:
    """Merge the active adapter of a PEFT model into its base model, in place.

    Args:
        policy: The PEFT model.
        where: The adapter, for messages.

    Returns:
        The model without PEFT.

    Raises:
        ModelError: If PEFT cannot merge the adapter.
    """
    if not hasattr(policy, "merge_and_unload"):
        problem = f"adapters of the type {policy.peft_type} cannot be merged"
        raise ModelError(Problem(where, problem, "Export the adapter without --merge"))
    untied = _untie(policy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tied weights, which `_untie` handles
            merged = policy.merge_and_unload(safe_merge=True)
    # PEFT raises these for weights that are not finite, and for layers that it cannot merge
    except (ValueError, NotImplementedError, AttributeError) as error:
        problem = f"the adapter cannot be merged ({' '.join(str(error).split()).rstrip('.')})"
        raise ModelError(Problem(where, problem, "Train it again")) from error
    if untied:
        _tie_if_equal(merged)
    return merged


def _untie(policy: Any) -> bool:
    """Untie output head and embeddings if the adapter changes one of them; return whether it did.

    With tied weights PEFT would merge a change of one into both.
    """
    model = policy.get_base_model()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if not tied or head is None:
        return False
    adapted = {path for _, path, _ in adapter_tensors(model)}
    names = [name for name, module in model.named_modules() if module in (embeddings, head)]
    if not any(path.startswith(f"{name}.") for path in adapted for name in names):
        return False
    layer = _plain_layer(head)
    layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=False)
    return True


def _tie_if_equal(model: Any) -> None:
    """Tie head and embeddings again if they are still equal, else save both."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    equal = bool(embeddings.weight.equal(head.weight))
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = equal
    if equal:
        head.weight = embeddings.weight
    else:
        model.all_tied_weights_keys = {}


def _plain_layer(module: Any) -> Any:
    """Return the module of the base model inside the wrappers of PEFT."""
    for name in ("base_layer", "original_module"):
        if hasattr(module, name):
            return _plain_layer(getattr(module, name))
    return module

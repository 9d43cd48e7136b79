"""Which weights a loss depends on, found in the graph of its forward pass."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

__all__ = ["routes_tokens", "unused_weights"]

EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names of the number of experts in configurations of transformers."""


def unused_weights(result: Tensor, weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """Return the trainable weights that a differentiable result does not depend on."""
    reached: set[int] = set()
    visited: set[Any] = set()
    nodes: list[Any] = [result.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        nodes.extend(following for following, _ in node.next_functions)
    return [p for p in weights if p.requires_grad and id(p) not in reached]


def routes_tokens(config: Any) -> bool:
    """Return whether a model sends each token to some of its experts only."""
    texts = (config, config.get_text_config())
    return any((getattr(text, name, None) or 0) > 1 for text in texts for name in EXPERT_COUNTS)

"""A frozen copy in half precision gives the same numbers as the policy in mixed precision."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import batch_of, load_tiny, logp_model_of, mixed_rows

from unidpo_mm.modeling.logp_model import compute_logps
from unidpo_mm.modeling.parts import keep_in_float32
from unidpo_mm.modeling.references.kinds import FrozenCopy, StoredCopy, make_reference
from unidpo_mm.modeling.used_weights import routes_tokens, unused_weights

Checkpoint = Callable[[str], Path]


@pytest.mark.parametrize("model_type", ["llama", "llava", "qwen2_vl"])
def test_products_in_half_precision_change_no_number(
    checkpoint: Checkpoint, model_type: str
) -> None:
    loaded = load_tiny(checkpoint(model_type), dtype="bfloat16")
    policy = logp_model_of(loaded)
    keep_in_float32(policy)
    batch = batch_of(loaded, mixed_rows(images=model_type != "llama"))

    def reference(stored: StoredCopy) -> FrozenCopy:
        made = make_reference("frozen_copy", policy, loaded.adapter, stored=stored)
        assert isinstance(made, FrozenCopy)
        return made

    copied = reference(StoredCopy(products=torch.bfloat16))
    dtypes = {p.dtype for p in copied.logp_model.parameters()}
    assert dtypes == {torch.bfloat16, torch.float32}
    assert all(p.dtype == torch.float32 for p in policy.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = compute_logps(policy, loaded.adapter, batch)
        assert torch.equal(copied.token_logps(policy, batch), expected)
        halved = reference(StoredCopy(everything=torch.bfloat16))
        assert not torch.equal(halved.token_logps(policy, batch), expected)  # norms are rounded


def test_weights_that_never_change_are_shared_unless_they_are_divided(
    checkpoint: Checkpoint,
) -> None:
    loaded = load_tiny(checkpoint("llama"))
    policy = logp_model_of(loaded)
    policy.model.get_input_embeddings().requires_grad_(False)
    for shares in (True, False):
        stored = StoredCopy(shares=shares)
        copied = make_reference("frozen_copy", policy, loaded.adapter, stored=stored)
        assert isinstance(copied, FrozenCopy)
        weights = copied.logp_model.model.get_input_embeddings().weight
        assert (weights is policy.model.get_input_embeddings().weight) == shares


def test_weights_without_gradient_are_found_in_the_graph(checkpoint: Checkpoint) -> None:
    loaded = load_tiny(checkpoint("llama"))
    policy = logp_model_of(loaded)
    batch = batch_of(loaded, mixed_rows(images=False))
    assert unused_weights(compute_logps(policy, loaded.adapter, batch), policy.parameters()) == []
    extra = torch.nn.Parameter(torch.zeros(2))
    policy.register_parameter("extra", extra)
    logps = compute_logps(policy, loaded.adapter, batch)
    (unused,) = unused_weights(logps, policy.parameters())
    assert unused is extra
    assert not routes_tokens(loaded.model.config)
    loaded.model.config.num_local_experts = 4
    assert routes_tokens(loaded.model.config)

"""Steps of preparing a run that differ if weights are divided among processes."""

import logging

import torch

from ..config.python import UniDPOConfig
from ..distributed.sharding import Sharding, sharding_of, weight_count
from ..modeling.references.cached import CachedReference
from ..modeling.references.kinds import FrozenCopy, Reference, StoredCopy

__all__ = ["load_whole_weights", "stored_copy", "warn_of_whole_copy"]

logger = logging.getLogger(__name__)


def load_whole_weights(args: UniDPOConfig) -> None:
    """Let every process load all weights, which DeepSpeed divides later.

    transformers would divide them while it loads them, and digests, the reference and new LoRA
    adapters would be made from empty tensors. The trainer sets the configuration again.
    """
    if sharding_of(args).stage == 3:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def stored_copy(args: UniDPOConfig, dtype: torch.dtype) -> StoredCopy:
    """Return how the weights of a frozen copy are stored; see `StoredCopy`."""
    sharding = sharding_of(args)
    mixed = args.bf16 or args.fp16
    return StoredCopy(
        products=dtype if mixed else None,
        everything=dtype if mixed and sharding.kind == "deepspeed" else None,
        shares=sharding.stage < 3,
    )


def warn_of_whole_copy(reference: Reference, sharding: Sharding) -> None:
    """Warn if every process keeps a whole second model while the policy is divided."""
    source = reference.source if isinstance(reference, CachedReference) else reference
    if not sharding.weights or not isinstance(source, FrozenCopy):
        return
    size = sum(weight_count(p) * p.element_size() for p in source.logp_model.parameters())
    logger.warning(
        "%s divides the policy, but every GPU keeps a whole frozen copy of it as the reference "
        "(%.3g GB): set train.reference to cached, or train a LoRA adapter",
        sharding.name,
        size / 1e9,
    )

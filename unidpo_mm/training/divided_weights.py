"""Steps of preparing a run that differ if weights are divided among processes."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator
from typing import Any

import torch

from ..config.python import UniDPOConfig
from ..distributed.sharding import Sharding, sharding_of, weight_count
from ..modeling.references.cached import CachedReference
from ..modeling.references.kinds import FrozenCopy, Reference, StoredCopy

__all__ = [
    "gather_when_saving",
    "keep_log_probs_exact",
    "load_whole_weights",
    "saving_whole_weights",
    "stored_copy",
    "warn_of_whole_copy",
]

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
    """Return how the weights of a frozen copy are stored, so that its numbers equal the policy's.

    In half precision, FSDP computes with converted weights and DeepSpeed converts the whole model,
    so norms and embeddings are rounded too.
    """
    sharding = sharding_of(args)
    if not (args.bf16 or args.fp16):
        return StoredCopy(shares=sharding.stage < 3)
    if sharding.kind == "none":
        return StoredCopy(products=dtype)
    deepspeed = sharding.kind == "deepspeed"
    return StoredCopy(everything=dtype, buffers=deepspeed, shares=deepspeed and sharding.stage < 3)


def keep_log_probs_exact(accelerator: Any) -> None:
    """Let FSDP return log-probs, and add gradients, in float32.

    In mixed precision, accelerate makes it convert both to 16 bits: a log-prob of -12 would be
    rounded to a multiple of 0.06.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    policy = getattr(plugin, "mixed_precision_policy", None)
    if plugin is not None and policy is not None:
        plugin.mixed_precision_policy = dataclasses.replace(
            policy, output_dtype=None, reduce_dtype=torch.float32
        )


def gather_when_saving(accelerator: Any) -> None:
    """Let ZeRO-3 gather weights that are saved; by default it writes files of its own instead."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    options = {} if plugin is None else plugin.deepspeed_config.get("zero_optimization", {})
    if options.get("stage") == 3:
        options["stage3_gather_16bit_weights_on_model_save"] = True


@contextlib.contextmanager
def saving_whole_weights(accelerator: Any) -> Iterator[None]:
    """Let FSDP gather weights that are saved.

    By default, accelerate has every process write its part, and transformers then saves no model
    that `from_pretrained` reads. The state of the optimizer is still saved in parts.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        yield
        return
    configured = plugin.state_dict_type
    plugin.state_dict_type = type(configured).FULL_STATE_DICT
    try:
        yield
    finally:
        plugin.state_dict_type = configured


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

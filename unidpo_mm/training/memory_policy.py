"""Checkpoint as few layers as the activation memory allows (`train.memory`).

Activation checkpointing frees the activations of a layer and computes them again for the backward
pass. One micro-batch is measured when training begins; from that follows how many layers have to be
checkpointed for the largest micro-batch to fit.
"""

import logging
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..data.workers import batch_of
from ..distributed import maximum
from ..errors import counted
from ..modeling.activation_memory import (
    LayerMemory,
    checkpoint_first,
    enable_checkpointing,
    measure_layers,
)
from ..modeling.logp_model import compute_logps
from ..records import Layout
from .context import TrainingContext

__all__ = ["ActivationMemoryBudget", "max_tokens", "measure_first_batch"]

logger = logging.getLogger(__name__)

USABLE_SHARE = 0.8
"""Share of the free memory that is used; the rest is for buffers that are not estimated."""

GIGABYTE = 10**9


class ActivationMemoryBudget(TrainerCallback):
    """A callback that keeps activations within their budget by checkpointing layers."""

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure a micro-batch and choose the layers to checkpoint, if `memory` is set."""
        if args.memory is None:
            return
        trainer = self.trainer
        measured = measure_first_batch(trainer)
        automatic = args.memory == "auto"
        budget = _free_memory(trainer) if automatic else int(args.memory * GIGABYTE)
        largest_batch = max(max_tokens(trainer), measured.tokens)
        count = measured.layers_to_checkpoint(budget, tokens=largest_batch)
        (count,) = maximum([count])
        model = trainer.parts.logp_model.model
        if count:
            enable_checkpointing(model)
        checkpoint_first(model, count)
        if state.is_world_process_zero:
            Console(stderr=True).print(
                f"Activation memory: {count} of {counted(len(measured.kept), 'layer')} "
                f"checkpointed, for micro-batches of up to {counted(largest_batch, 'token')} in "
                f"{budget / GIGABYTE:.2g} GB",
                soft_wrap=True,
            )
            needed = measured.needed(count) * largest_batch / measured.tokens
            if needed > budget:
                logger.warning(
                    "memory (train.memory): with every layer checkpointed, the activations of "
                    "such a micro-batch still need %.2g GB. Reduce per_device_train_batch_size or "
                    "max_length, or raise memory.",
                    needed / GIGABYTE,
                )


def measure_first_batch(trainer: TrainingContext) -> LayerMemory:
    """Run the forward pass of one micro-batch and return the activations that each layer keeps."""
    model = trainer.parts.logp_model.model
    checkpoint_first(model, 0)
    batch = batch_of(next(iter(trainer.get_train_dataloader()))).to(trainer.args.device)
    wrapped = trainer.model_wrapped
    with trainer.accelerator.no_sync(wrapped), trainer.accelerator.autocast():
        return measure_layers(
            model,
            lambda: compute_logps(wrapped, trainer.parts.adapter, batch),
            batch.inputs.tokens["input_ids"].numel(),
        )


def max_tokens(trainer: TrainingContext) -> int:
    """Return an upper bound of the tokens in a micro-batch; 0 if the preflight is off."""
    preflight = trainer.parts.preflight
    if preflight is None:
        return 0
    max_pairs = max(
        trainer.args.per_device_train_batch_size,
        *(len(row.pairs) or len(row.responses) for row in trainer.parts.train_rows),
    )
    layout: Layout = "plain" if trainer.layout.layout == "plain" else "packed"
    return round(preflight.tokens_of_pair[layout] * max_pairs)


def _free_memory(trainer: TrainingContext) -> int:
    """Return the bytes that activations may take on this device."""
    device = trainer.args.device
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        import psutil

        free = int(psutil.virtual_memory().available) // max(trainer.args.world_size, 1)
    logp_model = trainer.parts.logp_model
    trained = sum(p.numel() for p in logp_model.parameters() if p.requires_grad)
    vocabulary: int = logp_model.config.get_text_config().vocab_size
    # not allocated yet: gradient and two moments of each trained weight, 4 bytes each, and three
    # float32 tensors of the size of the logits of a chunk
    reserved = 12 * trained + 3 * 4 * logp_model.chunk_size * vocabulary
    return max(int(USABLE_SHARE * free) - reserved, 1)

"""Checkpoints just as many layers as the memory at hand asks for (`memory: auto`)."""

import logging
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback, TrainerControl, TrainerState

from ..data.workers import batch_of
from ..distributed import maximum
from ..errors import Problem, RecipeError, counted
from ..modeling.activation_memory import (
    LayerMemory,
    checkpoint_first,
    enable_checkpointing,
    measure_layers,
)
from ..modeling.logp_model import compute_logps
from ..records import Layout
from .argument_ranges import LEAST_GIGABYTES
from .context import TrainingContext

__all__ = ["MemoryPolicy", "max_tokens", "measure_first_batch", "parse_memory"]

logger = logging.getLogger(__name__)

SHARE = 0.8
"""Of the free memory; the rest is for what nobody counts."""

GIGABYTE = 10**9


def parse_memory(memory: str | None) -> int | None:
    """Return the bytes that `memory` allows for activations; None for ``auto`` or nothing.

    Raises:
        RecipeError: If it is neither ``auto`` nor a number of gigabytes.
    """
    if memory in (None, "auto"):
        return None
    try:
        gigabytes = float(str(memory))
    except ValueError:
        gigabytes = -1.0
    if not LEAST_GIGABYTES <= gigabytes < float("inf"):
        remedy = "Write auto, or gigabytes for the activations of a micro-batch, for example 8"
        raise RecipeError(Problem("train.memory", f"found {memory!r}", remedy))
    return int(gigabytes * GIGABYTE)


class MemoryPolicy(TrainerCallback):
    """Measures one micro-batch when training begins and chooses the layers to checkpoint."""

    def __init__(self, trainer: TrainingContext) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Does nothing unless `memory` is set."""
        if args.memory is None:
            return
        trainer = self.trainer
        found = measure_first_batch(trainer)
        budget = parse_memory(args.memory) or _free_memory(trainer)
        most = max(max_tokens(trainer), found.tokens)
        count = found.layers_to_checkpoint(budget, tokens=most)
        (count,) = maximum([count])
        model = trainer.parts.logp_model.model
        if count:
            enable_checkpointing(model)
        checkpoint_first(model, count)
        if state.is_world_process_zero:
            Console(stderr=True).print(
                f"Memory: {count} of {counted(len(found.kept), 'layer')} checkpointed, for "
                f"micro-batches of up to {counted(most, 'token')} in {budget / GIGABYTE:.2g} GB",
                soft_wrap=True,
            )
            needed = found.needed(count) * most / found.tokens
            if needed > budget:
                logger.warning(
                    "memory (train.memory): even with every layer checkpointed, the activations "
                    "of such a micro-batch take %.2g GB; reduce per_device_train_batch_size or "
                    "max_length, or raise it",
                    needed / GIGABYTE,
                )


def measure_first_batch(trainer: TrainingContext) -> LayerMemory:
    """Run the first micro-batch once, without a backward pass, and returns what layers keep."""
    model = trainer.parts.logp_model.model
    checkpoint_first(model, 0)
    batch = batch_of(next(iter(trainer.get_train_dataloader()))).to(trainer.args.device)
    wrapped = trainer.model_wrapped
    with trainer.accelerator.no_sync(wrapped), trainer.accelerator.autocast():
        return measure_layers(
            model,
            lambda: compute_logps(wrapped, trainer.parts.adapter, batch),
            batch.token_inputs["input_ids"].numel(),
        )


def max_tokens(trainer: TrainingContext) -> int:
    """Return a bound for the tokens of a micro-batch; 0 where the data was not looked through."""
    found = trainer.parts.preflight
    if found is None:
        return 0
    max_pairs = max(
        trainer.args.per_device_train_batch_size,
        *(len(row.pairs) or len(row.responses) for row in trainer.parts.train_rows),
    )
    layout: Layout = "plain" if trainer.layout.layout == "plain" else "packed"
    return round(found.tokens_of_pair[layout] * max_pairs)


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
    # to come: gradients and two moments of every trained weight; logits of a chunk, thrice
    to_come = 12 * trained + 3 * 4 * logp_model.chunk_size * vocabulary
    return max(int(SHARE * free) - to_come, 1)

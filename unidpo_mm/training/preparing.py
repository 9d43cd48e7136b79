"""The part of the trainer that prepares the model for its processes, and checks it.

A model that every process has as a whole is checked before accelerate prepares it. If weights are
divided among processes (FSDP, DeepSpeed), no process could check the whole model in a reasonable
time, so it is checked after it was prepared, by all processes together.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..conformance import check_untested_type
from ..data.collate import GroupCollator
from ..data.workers import batch_of
from ..distributed import first_process, true_everywhere
from ..distributed.sharding import sharding_of
from ..errors import ModelError, Problem
from ..inference.image_tokens import check_image_tokens
from ..modeling.logp_model import compute_logps, evaluating
from ..modeling.parts import compute_dtype
from ..modeling.references.moving import MovingLora
from ..modeling.used_weights import routes_tokens, unused_weights
from .configured_loss import pinned_settings
from .divided_weights import gather_when_saving, keep_log_probs_exact
from .layout_trial import sample_rows, token_count
from .nonfinite import handle_non_finite
from .resuming import CheckpointedTrainer
from .run_parts import LayoutChoice
from .startup_checks import check_start, layers_to_share

__all__ = ["PreparingTrainer"]

LATER = "it is checked when the weights have been divided"
"""The reason of a layout that has not been checked yet."""


class PreparingTrainer(CheckpointedTrainer):
    """A trainer that checks the model before the first step, however it is divided."""

    collator: GroupCollator

    def _check_unprepared(self) -> None:
        """Check how weights are divided, and the model if they are not; choose its layout."""
        _check_sharding(self.args, self.accelerator)
        keep_log_probs_exact(self.accelerator)
        gather_when_saving(self.accelerator)
        parts, args = self.parts, self.args
        if self.place_model_on_device:
            self.layout = check_start(parts, args, args.device)
            self.shared_layers = layers_to_share(parts, args, self.layout.layout, args.device)
            return
        self.layout = LayoutChoice("plain" if args.layout == "auto" else args.layout, LATER)
        first_process(self._check_on_cpu)
        # only now: all processes compute together from here on
        parts.logp_model.same_chunks = sharding_of(args).stage == 3

    def _check_on_cpu(self) -> None:
        """Check an image on the CPU and, if the family does not list the type, a few short rows."""
        parts, args = self.parts, self.args
        dtype = compute_dtype(args, parts.logp_model)
        with torch.autocast("cpu", dtype=dtype, enabled=args.bf16 or args.fp16):
            check_image_tokens(parts.logp_model.model, parts.adapter, "cpu")
            check_untested_type(parts.logp_model, parts.family, parts.adapter, "cpu")

    def _prepare_for_training(
        self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None
    ) -> tuple[nn.Module, DataLoader[Any]]:
        """Prepare model and optimizer; check a model whose weights have been divided."""
        self._find_unused_weights()
        if self.is_deepspeed_enabled and resume_from_checkpoint is not None:
            # transformers lets DeepSpeed alone load the checkpoint
            self._load_loss_state(resume_from_checkpoint)
        base: Any = super()
        model, loader = base._prepare_for_training(
            max_steps, train_dataloader, resume_from_checkpoint
        )
        if self.layout.reason == LATER:
            self._check_prepared(model)
            loader = self.get_train_dataloader()
            self.callback_handler.train_dataloader = loader
        return model, loader

    def _find_unused_weights(self) -> None:
        """Let DDP search for weights without gradient only if there are any.

        The search costs a walk over the graph and a wait for the device in every step. Every
        micro-batch runs every part of the model (`GroupCollator.fillers`), so a single one shows
        which weights are used, except for experts.
        """
        handler = self.accelerator.ddp_handler
        several = self.accelerator.num_processes > 1 and self.place_model_on_device
        if not several or handler is None or self.args.ddp_find_unused_parameters is not None:
            return
        model, adapter = self.parts.logp_model, self.parts.adapter
        if routes_tokens(model.config):
            return
        groups = [adapter.encode(row) for row in sample_rows(self.parts.train_rows)]
        group = min(groups, key=token_count)  # its graph is kept, without checkpointing
        batch = batch_of(self.collator([group])).to(self.args.device)
        with torch.enable_grad(), self.accelerator.autocast(), evaluating(model):
            unused = unused_weights(compute_logps(model, adapter, batch), model.parameters())
        handler.find_unused_parameters = not true_everywhere(not unused)

    def _check_prepared(self, model: nn.Module) -> None:
        """Check a prepared model and set the layout of batches; every process calls it."""
        with self.accelerator.autocast():
            self.layout = check_start(self.parts, self.args, self.args.device, prepared=model)
        self.collator = dataclasses.replace(self.collator, layout=self.layout.layout)
        self.data_collator = self.collator

    def _check_last_loss(self) -> None:
        """Stop before a loss that is not finite reaches the weights.

        DeepSpeed updates them in the backward pass of the last micro-batch, before the callback
        that checks the step of other runs.
        """
        if not self.is_deepspeed_enabled or not self.accelerator.sync_gradients:
            return
        if self.interruption.agree(problem=not self.watch.is_finite()):
            handle_non_finite(self)

    def _load_loss_state(self, checkpoint: str) -> None:
        """Load what the loss and a moving reference remember."""
        settings = pinned_settings(self.parts.settings, checkpoint)
        self.parts = dataclasses.replace(self.parts, settings=settings)
        if isinstance(self.parts.reference, MovingLora):
            self.parts.reference.load(Path(checkpoint))

    def _model_to_evaluate(self) -> nn.Module:
        """Return the model as accelerate prepared it; prepare it if training has not."""
        if not self.is_in_train and not self.accelerator._models:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                self.model_wrapped = self.accelerator.prepare(self.model)
                if self.layout.reason == LATER:
                    self._check_prepared(self.model_wrapped)
            else:
                self.model_wrapped = self.accelerator.prepare_model(
                    self.model, evaluation_mode=True
                )
        wrapped: nn.Module = self.model_wrapped
        return wrapped


def _check_sharding(args: Any, accelerator: Any) -> None:
    """Raise ModelError if weights would not be divided as requested, or not correctly."""
    if sharding_of(args).kind == "deepspeed" and args.on_nonfinite == "skip":
        problem = "DeepSpeed applies a step before its gradient is checked, so none can be skipped"
        raise ModelError(Problem("train.on_nonfinite", problem, "Set it to stop, or use FSDP2"))
    sharding = sharding_of(args)
    if sharding.kind != "none" and args.tokens_per_micro_batch and args.layout == "auto":
        problem = (
            "the number of micro-batches depends on the layout, which is chosen only after "
            f"{sharding.name} has prepared the model"
        )
        remedy = "Set model.layout to packed, or to plain"
        raise ModelError(Problem("train.tokens_per_micro_batch", problem, remedy))
    problem, remedy = "", ""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if args.fsdp and accelerator.distributed_type.value != "FSDP":
        problem = f"it is set, but accelerate uses {accelerator.distributed_type.value}"
        remedy = "Start with an FSDP configuration on GPUs, or remove fsdp"
    elif plugin is not None and plugin.fsdp_version != 2:
        problem = "version 1 of FSDP is not supported"
        remedy = "Set fsdp_version: 2, as in configs/accelerate/fsdp2.yaml"
    elif plugin is not None and "SIZE" in str(getattr(plugin, "auto_wrap_policy", "")).upper():
        problem = (
            "modules are wrapped by their size, so the output head would gather its weights for "
            "every chunk, and processes with unequal numbers of chunks would wait forever"
        )
        remedy = "Set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP"
    if problem:
        raise ModelError(Problem("train.fsdp", problem, remedy))

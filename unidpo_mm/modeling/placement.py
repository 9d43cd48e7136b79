"""Batches on the device of a model, without waiting for it."""

import dataclasses

import torch

from ..adapter import Adapter
from ..records import GroupBatch
from .logp_model import LogpModel

__all__ = ["place_batch"]


def place_batch(
    batch: GroupBatch, logp_model: LogpModel, adapter: Adapter, device: torch.device | str
) -> GroupBatch:
    """Return a batch of a data loader on a device, with the positions of its tokens.

    On a GPU the copies only start: they overlap with what the GPU still computes, if the loader
    has pinned the batch, and the host continues.
    """
    inputs = batch.inputs
    if inputs.positions is None:
        positions = logp_model.count_positions(adapter.forward_inputs(inputs), inputs)
        inputs = dataclasses.replace(inputs, positions=positions)
        batch = dataclasses.replace(batch, inputs=inputs)
    return batch.to(device, non_blocking=torch.device(device).type == "cuda")

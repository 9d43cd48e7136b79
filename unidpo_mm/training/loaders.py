"""Data sets, samplers, collators and loaders of a run."""

import functools
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler

from ..adapter import fillers, rounds_pixels, tower_inputs
from ..config.python import UniDPOConfig
from ..data.batches import (
    GroupBatchSampler,
    GroupDataset,
    pack_tokens,
    rounded,
    token_sizes,
)
from ..data.collate import GroupCollator
from ..data.row_table import columns_of
from ..data.stream_batches import StreamCollator, StreamDataset
from ..data.workers import protect_worker
from ..modeling.parts import compute_dtype
from ..modeling.references.cached import CachedReference
from ..records import Layout
from .run_parts import RunParts

__all__ = [
    "evaluation_sets",
    "new_collator",
    "new_loader",
    "train_sampler",
    "training_set",
    "unit_sampler",
]


def training_set(parts: RunParts, args: UniDPOConfig) -> GroupDataset | StreamDataset:
    """Return the training rows, or the micro-batches of a stream."""
    if parts.stream is None:
        return GroupDataset(parts.train_rows, parts.adapter)
    micro_batches = args.max_steps * args.gradient_accumulation_steps * args.world_size
    size = args.per_device_train_batch_size
    return StreamDataset(parts.stream, parts.adapter, size, micro_batches)


def evaluation_sets(parts: RunParts) -> Any:
    """Return one evaluation set, a dict of several, or `None`, as transformers expects it."""
    if parts.eval_sets:
        sets = parts.eval_sets.items()
        return {name: GroupDataset(rows, parts.adapter) for name, rows in sets}
    return GroupDataset(parts.eval_rows, parts.adapter) if parts.eval_rows else None


def train_sampler(
    dataset: GroupDataset | StreamDataset,
    parts: RunParts,
    args: UniDPOConfig,
    layout: Layout,
    *,
    seed: int,
    processes: int,
) -> Sampler[list[int]]:
    """Return the sampler of training micro-batches, which are limited by tokens or by units."""
    if isinstance(dataset, StreamDataset):
        return BatchSampler(SequentialSampler(dataset), 1, drop_last=False)
    limit, lengths = args.tokens_per_micro_batch, parts.lengths
    if limit is None or lengths is None:
        size = args.per_device_train_batch_size
        return unit_sampler(dataset, size, seed=seed, processes=processes)
    return GroupBatchSampler(
        dataset,
        rounded(token_sizes(lengths, layout), limit),
        limit,
        seed=seed,
        multiple_of=processes,
        pack=functools.partial(pack_tokens, padded=layout != "joined"),
    )


def unit_sampler(
    dataset: GroupDataset, batch_size: int, *, seed: int | None = None, processes: int
) -> GroupBatchSampler:
    """Return a sampler that counts units; without a seed, groups keep the order of the data set."""
    return GroupBatchSampler(
        dataset,
        columns_of(dataset.rows).units.tolist(),
        batch_size,
        seed=seed,
        multiple_of=processes,
    )


def new_collator(
    parts: RunParts, args: UniDPOConfig, layout: Layout, *, processes: int
) -> GroupCollator:
    """Return the collator of a run.

    With several processes, a filler with an image, and in a run with videos one with a video, makes
    every batch use every part of the model, so that gradients are reduced over the same parameters
    on all of them.
    """
    adapter, rows = parts.adapter, (parts.train_rows, parts.eval_rows)
    rounds = (args.bf16 or args.fp16) and rounds_pixels(adapter)
    has_videos = any(bool(columns_of(part).videos.any()) for part in rows)
    return GroupCollator(
        pad_token_id=adapter.pad_token_id,
        padding_side=args.padding_side,
        layout=layout,
        media_once=parts.logp_model.takes_features,
        tower_inputs=tower_inputs(adapter),
        media_dtype=compute_dtype(args, parts.logp_model) if rounds else None,
        keyed=parts.features is not None or isinstance(parts.reference, CachedReference),
        fillers=fillers(adapter, videos=has_videos) if processes > 1 else {},
    )


def new_loader(
    sampler: Sampler[list[int]],
    dataset: GroupDataset | StreamDataset,
    collator: GroupCollator,
    args: UniDPOConfig,
    *,
    read_once: bool,
) -> DataLoader[Any]:
    """Return a loader of the micro-batches of a sampler.

    Args:
        sampler: Yields the numbers of the rows of each micro-batch.
        dataset: The rows.
        collator: Turns rows into a batch.
        args: The options of the run.
        read_once: Whether the loader is read a single time, so that its workers end afterwards.
    """
    streamed = isinstance(dataset, StreamDataset)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=StreamCollator(collator) if streamed else collator,
        num_workers=args.dataloader_num_workers or 0,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers and not read_once,
        prefetch_factor=args.dataloader_prefetch_factor,
        timeout=args.worker_timeout if args.dataloader_num_workers else 0,
        worker_init_fn=protect_worker,
    )

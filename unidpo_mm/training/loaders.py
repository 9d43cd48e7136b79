"""The collator and the data loaders of a run."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from ..config.python import UniDPOConfig
from ..data.batches import GroupBatchSampler, GroupDataset
from ..data.collate import GroupCollator
from ..data.workers import explained_failures, protect_worker
from ..modeling.references.cached import CachedReference
from ..records import Layout
from .run_parts import RunParts

__all__ = ["collator_of", "prepared_loader", "workers_explained"]


def collator_of(
    parts: RunParts, args: UniDPOConfig, layout: Layout, *, processes: int
) -> GroupCollator:
    """Return the collator of a run.

    With several processes, a filler with an image makes every batch use every part of the model, so
    that gradients are reduced over the same parameters on all of them.
    """
    adapter = parts.adapter
    filler = adapter.filler() if processes > 1 else None
    return GroupCollator(
        pad_token_id=adapter.pad_token_id,
        padding_side=args.padding_side,
        layout=layout,
        images_once=parts.logp_model.takes_features,
        keyed=parts.features is not None or isinstance(parts.reference, CachedReference),
        filler=filler if filler is not None and filler.has_media else None,
    )


def prepared_loader(
    dataset: GroupDataset,
    collator: Callable[[list[Any]], dict[str, Any]],
    args: UniDPOConfig,
    accelerator: Any,
    batch_size: int,
    seed: int | None,
) -> DataLoader[Any]:
    """Return a loader of micro-batches of complete groups, the same number on every process.

    Args:
        dataset: The groups.
        collator: Builds batches from groups.
        args: The number of data workers and their timeout.
        accelerator: Distributes batches over the processes.
        batch_size: Number of units in a micro-batch.
        seed: Seed of the order of groups; `None` keeps the order of the data set.
    """
    sampler = GroupBatchSampler(
        dataset,
        [len(row.pairs) or len(row.responses) for row in dataset.rows],
        batch_size,
        seed=seed,
        multiple_of=accelerator.num_processes,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collator,
        num_workers=args.dataloader_num_workers,
        pin_memory=args.dataloader_pin_memory,
        persistent_workers=args.dataloader_persistent_workers,
        prefetch_factor=args.dataloader_prefetch_factor,
        timeout=args.worker_timeout if args.dataloader_num_workers else 0,
        worker_init_fn=protect_worker,
    )
    prepared: DataLoader[Any] = accelerator.prepare(loader)
    return prepared


@contextlib.contextmanager
def workers_explained(dataset: GroupDataset) -> Iterator[None]:
    """Report the rows that were being read if a data worker hangs or is killed."""
    with explained_failures(dataset.reading_log, dataset.rows):
        yield

"""How batches reach the trainer: the collator of a run, and its data loaders."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from ..data.batches import GroupBatchSampler, GroupDataset
from ..data.collate import GroupCollator
from ..data.workers import explained_failures, protect_worker
from ..modeling.references.cached import CachedReference
from ..records import Layout
from .config import UniDPOConfig
from .run_parts import RunParts

__all__ = ["collator_of", "prepared_loader", "workers_explained"]


def collator_of(
    parts: RunParts, args: UniDPOConfig, layout: Layout, *, processes: int
) -> GroupCollator:
    """Return the collator; with several processes every batch runs every part of the model."""
    adapter = parts.adapter
    filler = adapter.filler() if processes > 1 else None
    return GroupCollator(
        pad_token_id=adapter.pad_token_id,
        padding_side=args.padding_side,
        layout=layout,
        images_once=parts.logp_model.takes_features,
        keyed=parts.features is not None or isinstance(parts.reference, CachedReference),
        filler=filler if filler is not None and filler.image_extras else None,
    )


def prepared_loader(
    dataset: GroupDataset,
    collator: Callable[[list[Any]], dict[str, Any]],
    args: UniDPOConfig,
    accelerator: Any,
    batch_size: int,
    seed: int | None,
) -> DataLoader[Any]:
    """Return a loader of micro-batches of whole groups, as many on every process.

    Args:
        dataset: The groups.
        collator: Makes batches of them.
        args: How many workers read, and how long they may take.
        accelerator: Deals batches out to the processes.
        batch_size: Units of a micro-batch.
        seed: Chooses the order of the groups; None keeps it.
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
    """Say which rows were being read when a data worker hangs or is killed."""
    with explained_failures(dataset.reading_log, dataset.rows):
        yield

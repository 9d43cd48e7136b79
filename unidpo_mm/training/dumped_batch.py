"""The batches in the dump of a step, as types that `torch.load` reads without running code."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..records import CacheKeys, GroupBatch, MediaInputs, ModelInputs, Targets, Units

__all__ = ["FORMAT_VERSION", "batch_from_plain", "batch_to_plain"]

FORMAT_VERSION = 2
"""Version of the dump; in version 1 a batch had no parts."""


def batch_to_plain(batch: GroupBatch) -> dict[str, Any]:
    """Convert a batch to mappings of tensors on the CPU, texts and numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.cpu()
        if isinstance(value, Mapping):
            return {name: plain(item) for name, item in value.items()}
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return value

    content: dict[str, Any] = plain(batch)
    return content


def batch_from_plain(content: Mapping[str, Any], version: int) -> GroupBatch:
    """Return the batch of a dump.

    Args:
        content: The batch, on the CPU.
        version: Version of the dump.
    """
    content = _with_parts(content) if version == 1 else content
    inputs = content["inputs"]
    media = {kind: MediaInputs(**tensors) for kind, tensors in inputs["media"].items()}
    return GroupBatch(
        inputs=ModelInputs(**{**inputs, "media": media}),
        targets=Targets(**content["targets"]),
        scores=content["scores"],
        pairs=Units(**content["pairs"]),
        responses=Units(**content["responses"]),
        sources=content["sources"],
        cache_keys=CacheKeys(**content["cache_keys"]),
    )


def _with_parts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a batch of version 1; its units get the ids of their rows."""
    images = {"inputs": content["image_inputs"], "order": content["image_order"]}
    return {
        "inputs": {
            "tokens": content["token_inputs"],
            "media": {"image": images},
            **{name: content[name] for name in ("layout", "segment", "row_position")},
        },
        "targets": {
            "ids": content["target_ids"],
            "row_ids": content["response_rows"],
            **{name: content[name] for name in ("row", "position", "response", "lengths")},
        },
        "scores": content["scores"],
        "pairs": {
            "indices": torch.stack([content["chosen"], content["rejected"]], 1),
            "weight": content["pair_weight"],
            "source": content["pair_source"],
            "ids": content["pair_rows"],
            "row_ids": content["pair_rows"],
            "domains": content["pair_domains"],
        },
        "responses": {
            "indices": content["targets"].unsqueeze(1),
            "weight": content["target_weight"],
            "source": torch.zeros_like(content["targets"]),  # no loss reads it
            "ids": content["target_rows"],
            "row_ids": content["target_rows"],
            "domains": content["target_domains"],
        },
        "sources": content["sources"],
        "cache_keys": {"responses": content["response_keys"], "images": content["image_digests"]},
    }

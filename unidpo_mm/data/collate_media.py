"""Join the images and videos of groups into the tensors of a batch."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ..records import EncodedGroup, MediaInputs, MediaKind

__all__ = ["collate_media"]


def collate_media(
    groups: Sequence[EncodedGroup],
    rows: Sequence[EncodedGroup],
    *,
    once: bool,
    dtype: torch.dtype | None = None,
) -> dict[MediaKind, MediaInputs]:
    """Return the media of all rows, or those of all groups and the order that rows need.

    Args:
        groups: The groups of a batch.
        rows: The group of each row.
        once: Whether the rows share the media of their group.
        dtype: The format of pixels; `None` for the processor's.
    """
    kinds = dict.fromkeys(
        kind for group in groups for kind, media in group.media.items() if media.inputs
    )
    if not once or len(rows) == len(groups):
        return {kind: MediaInputs(_inputs(rows, kind, dtype)) for kind in kinds}
    return {
        kind: MediaInputs(_inputs(groups, kind, dtype), _order(groups, rows, kind))
        for kind in kinds
    }


def _order(
    groups: Sequence[EncodedGroup], rows: Sequence[EncodedGroup], kind: MediaKind
) -> tuple[int, ...]:
    """Return the indices of the feature entries that the rows need, in the order of the rows."""
    counts = [group.media[kind].entries if kind in group.media else 0 for group in groups]
    starts = accumulate(counts, initial=0)
    entries = {
        id(group): range(start, start + count)
        for group, start, count in zip(groups, starts, counts, strict=False)
    }
    return tuple(number for row in rows for number in entries[id(row)])


def _inputs(
    groups: Sequence[EncodedGroup], kind: MediaKind, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Concatenate the tensors of a kind of media along their first dimension."""
    media = [group.media[kind].inputs for group in groups if kind in group.media]
    names = dict.fromkeys(name for inputs in media for name in inputs)
    joined = {
        name: _stack_ragged([inputs[name] for inputs in media if name in inputs]) for name in names
    }
    return joined if dtype is None else _in_format(joined, dtype)


def _in_format(inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the tensors with pixels in a format; lists of times keep theirs."""
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() and tensor.dim() > 1 else tensor
        for name, tensor in inputs.items()
    }


def _stack_ragged(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension; pad the others with zeros.

    Images are most of a batch, so a tensor is copied once, and not at all if it is the only one.
    """
    if len(tensors) == 1:
        return tensors[0]
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]

    def padded(tensor: Tensor) -> Tensor:
        missing = [full - size for full, size in zip(shape, tensor.shape[1:], strict=True)]
        if not any(missing):
            return tensor
        return F.pad(tensor, [n for size in reversed(missing) for n in (0, size)])

    return torch.cat([padded(tensor) for tensor in tensors])

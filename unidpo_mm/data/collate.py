"""Pads groups into a batch: the only place that pads, and the place that picks a layout.

The plain layout writes one row `[prompt | response]` per response, the packed one a row per group,
the joined one a single row:

    group 0, response 0      p p p p a a a       p p p p a a a b b       p p p p a a a b b q q c c c
             response 1      p p p p b b .       q q c c c . . . .
    group 1, response 0      q q c c c . .

and the flat list of targets says, for every response token, which hidden state predicts it: the
one before it in the plain row. This is the only place that shifts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..cache.keys import images_key, response_keys
from ..errors import DataError, Problem
from ..records import EncodedGroup, GroupBatch, Layout
from .workers import error_of

__all__ = ["GroupCollator", "collate", "collate_prompts"]

PADDING = -1
"""Segment of padding."""


@dataclass(frozen=True, kw_only=True)
class GroupCollator:
    """Callable form of `collate` for a data loader.

    Attributes:
        pad_token_id: Id that fills rows.
        padding_side: Where rows are filled.
        layout: One row per answer, one per group, or one in all.
        images_once: Whether plain rows share the images of their group, see `collate`.
        keyed: Whether answers and images get keys, for a cache.
        filler: A group of weight 0 with images, added to batches without images so that every
            process runs every part of the model; None where there is no need.
    """

    pad_token_id: int
    padding_side: Literal["left", "right"] = "right"
    layout: Layout = "plain"
    images_once: bool = False
    keyed: bool = False
    filler: EncodedGroup | None = None

    def __call__(self, groups: Sequence[EncodedGroup]) -> dict[str, Any]:
        """Return ``{"batch": GroupBatch}``: the trainer moves only mappings to the device.

        If a data worker could not encode a row, return ``{"error": UniDPOError}``.
        """
        groups = list(groups)
        error = error_of(groups)
        if error is not None:
            return {"error": error}
        if self.filler is not None and not any(group.image_extras for group in groups):
            groups.append(self.filler)
        batch = collate(
            groups,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            layout=self.layout,
            images_once=self.images_once,
            keyed=self.keyed,
        )
        return {"batch": batch}


def collate(
    groups: Sequence[EncodedGroup],
    *,
    pad_token_id: int,
    padding_side: Literal["left", "right"] = "right",
    layout: Layout = "plain",
    images_once: bool = False,
    keyed: bool = False,
) -> GroupBatch:
    """Return a batch.

    Args:
        groups: At least one group.
        pad_token_id: Id that fills rows.
        padding_side: Where rows are filled; it changes no result.
        layout: One row per answer, one per group, or one in all; it changes no result either.
        images_once: Whether the tensors of a group's images stand in the batch once, with an
            order that says where they go, or once for each row. Packed rows have them once.
        keyed: Whether answers and images get keys, for a cache.

    Raises:
        DataError: If there is nothing to collate.
    """
    if not groups:
        raise DataError(Problem("batch", "there is no group", "Give at least one"))
    rows = _rows(groups, layout)
    grid = _Grid.of([row.ids.numel() for row in rows], padding_side, joined=layout == "joined")
    sources = tuple(dict.fromkeys(group.source for group in groups))
    return GroupBatch(
        layout=layout,
        token_inputs=_token_inputs(rows, grid, pad_token_id),
        **_images(groups, rows, once=images_once),
        segment=grid.lay([row.segment for row in rows], PADDING),
        row_position=grid.lay([row.row_position for row in rows], 0),
        **_targets(rows, grid),
        scores=torch.cat([group.scores for group in groups]),
        **_units(groups, sources),
        sources=sources,
        response_rows=tuple(row.group.row_id for row in rows for _ in row.numbers),
        **(_keys(groups) if keyed else {}),
    )


def collate_prompts(prompts: Sequence[EncodedGroup], *, pad_token_id: int) -> dict[str, Tensor]:
    """Return prompts alone as inputs for generation, [B, T] and images, filled on the left.

    Args:
        prompts: Groups without answers, at least one.
        pad_token_id: Id that fills rows.
    """
    rows = [_Row(group, ()) for group in prompts]
    grid = _Grid.of([row.ids.numel() for row in rows], "left", joined=False)
    return {**_token_inputs(rows, grid, pad_token_id), **_image_inputs(prompts)}


@dataclass(frozen=True)
class _Row:
    """A prompt with one of its answers, or with several one after the other, unpadded."""

    group: EncodedGroup
    numbers: tuple[int, ...]
    """Which answers of the group."""

    @property
    def answers(self) -> list[Tensor]:
        return [self.group.response_ids[number] for number in self.numbers]

    @property
    def ids(self) -> Tensor:
        return torch.cat([self.group.prompt_ids, *self.answers])

    @property
    def extras(self) -> dict[str, Tensor]:
        return {
            name: torch.cat([parts[0], *(parts[1 + number] for number in self.numbers)])
            for name, parts in self.group.token_extras.items()
        }

    @property
    def segment(self) -> Tensor:
        branches = [torch.full_like(ids, 1 + n) for n, ids in enumerate(self.answers)]
        return torch.cat([torch.zeros_like(self.group.prompt_ids), *branches])

    @property
    def row_position(self) -> Tensor:
        first = self.group.prompt_ids.numel()
        after = [torch.arange(first, first + ids.numel()) for ids in self.answers]
        return torch.cat([torch.arange(first), *after])

    def predictors(self) -> list[Tensor]:
        """Return, for each answer, where the hidden states stand that predict its tokens.

        The last prompt token predicts the first token of every answer, an answer's own tokens the
        others.
        """
        start = self.group.prompt_ids.numel()
        last = torch.tensor([start - 1])
        found = []
        for ids in self.answers:
            found.append(torch.cat([last, torch.arange(start, start + ids.numel() - 1)]))
            start += ids.numel()
        return found


def _rows(groups: Sequence[EncodedGroup], layout: Layout) -> list[_Row]:
    """Return groups with all their answers, or with one each; the answers keep their order."""
    rows = []
    for group in groups:
        numbers = range(len(group.response_ids))
        split = [(number,) for number in numbers] if layout == "plain" else [tuple(numbers)]
        rows += [_Row(group, taken) for taken in split]
    return rows


@dataclass(frozen=True)
class _Grid:
    """Where pieces of a batch stand: [B, T], and row and first position of each."""

    shape: tuple[int, int]
    places: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Sequence[int], side: str, *, joined: bool) -> "_Grid":
        """Return one row for each piece, filled up on one side, or one row for all."""
        if joined:
            starts = accumulate(lengths[:-1], initial=0)
            return cls((1, sum(lengths)), tuple((0, start) for start in starts))
        width = max(lengths)
        firsts = [0 if side == "right" else width - length for length in lengths]
        return cls((len(lengths), width), tuple(enumerate(firsts)))

    def lay(self, pieces: Sequence[Tensor], filling: int) -> Tensor:
        """Return [B, T] with the pieces in their places."""
        laid = torch.full(self.shape, filling, dtype=pieces[0].dtype)
        for piece, (row, start) in zip(pieces, self.places, strict=True):
            laid[row, start : start + piece.numel()] = piece
        return laid


def _token_inputs(rows: Sequence[_Row], grid: _Grid, pad_token_id: int) -> dict[str, Tensor]:
    inputs = {
        "input_ids": grid.lay([row.ids for row in rows], pad_token_id),
        "attention_mask": grid.lay([torch.ones_like(row.ids) for row in rows], 0),
    }
    for name in dict.fromkeys(name for row in rows for name in row.extras):
        tensors = [row.extras.get(name, torch.zeros_like(row.ids)) for row in rows]
        inputs[name] = grid.lay(tensors, 0)
    return inputs


def _keys(groups: Sequence[EncodedGroup]) -> dict[str, Any]:
    images = [images_key(group) for group in groups]
    both = list(zip(groups, images, strict=True))
    return {
        "response_keys": tuple(key for group, seen in both for key in response_keys(group, seen)),
        "image_digests": tuple(
            (seen, group.num_images) for group, seen in both if group.num_images
        ),
    }


def _images(groups: Sequence[EncodedGroup], rows: Sequence[_Row], *, once: bool) -> dict[str, Any]:
    """Return the image-aligned tensors, and the order in which the rows need the images."""
    if not once or len(rows) == len(groups):
        return {"image_inputs": _image_inputs([row.group for row in rows])}
    starts = accumulate((group.num_images for group in groups[:-1]), initial=0)
    first = {id(group): start for group, start in zip(groups, starts, strict=True)}
    numbers = ((first[id(row.group)], row.group.num_images) for row in rows)
    return {
        "image_inputs": _image_inputs(groups),
        "image_order": tuple(start + n for start, count in numbers for n in range(count)),
    }


def _image_inputs(groups: Sequence[EncodedGroup]) -> dict[str, Tensor]:
    """Stack the image-aligned tensors along their first dimension, never cutting."""
    names = dict.fromkeys(name for group in groups for name in group.image_extras)
    return {
        name: _stack_ragged([g.image_extras[name] for g in groups if name in g.image_extras])
        for name in names
    }


def _stack_ragged(tensors: Sequence[Tensor]) -> Tensor:
    """Concatenate along the first dimension, filling the others up with zeros."""
    shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]

    def filled(tensor: Tensor) -> Tensor:
        missing = [full - size for full, size in zip(shape, tensor.shape[1:], strict=True)]
        return F.pad(tensor, [n for size in reversed(missing) for n in (0, size)])

    return torch.cat([filled(tensor) for tensor in tensors])


def _targets(rows: Sequence[_Row], grid: _Grid) -> dict[str, Any]:
    """Return the flat list (row, position) -> target id -> response, and the lengths."""
    row, position, answers = [], [], []
    for one, (number, start) in zip(rows, grid.places, strict=True):
        for predictors, ids in zip(one.predictors(), one.answers, strict=True):
            row.append(torch.full((ids.numel(),), number))
            position.append(start + predictors)
            answers.append(ids)
    lengths = torch.tensor([ids.numel() for ids in answers])
    return {
        "row": torch.cat(row),
        "position": torch.cat(position),
        "response": torch.arange(len(answers)).repeat_interleave(lengths),
        "target_ids": torch.cat(answers),
        "lengths": lengths,
    }


def _units(groups: Sequence[EncodedGroup], sources: tuple[str, ...]) -> dict[str, Any]:
    """Return pairs and targets as indices into the responses of the batch."""
    pairs, targets, first = [], [], 0
    for group in groups:
        pairs += [(group, first + p.chosen, first + p.rejected, p.weight) for p in group.pairs]
        targets += [(group, first + number) for number in group.targets]
        first += len(group.response_ids)
    return {
        "chosen": torch.tensor([chosen for _, chosen, _, _ in pairs], dtype=torch.int64),
        "rejected": torch.tensor([rejected for _, _, rejected, _ in pairs], dtype=torch.int64),
        "pair_weight": torch.tensor(
            [group.weight * weight for group, _, _, weight in pairs], dtype=torch.float64
        ),
        "pair_source": torch.tensor(
            [sources.index(group.source) for group, *_ in pairs], dtype=torch.int64
        ),
        "targets": torch.tensor([number for _, number in targets], dtype=torch.int64),
        "target_weight": torch.tensor([group.weight for group, _ in targets], dtype=torch.float64),
        "pair_rows": tuple(group.row_id for group, *_ in pairs),
        "target_rows": tuple(group.row_id for group, _ in targets),
        "pair_domains": tuple(group.domain for group, *_ in pairs),
        "target_domains": tuple(group.domain for group, _ in targets),
    }

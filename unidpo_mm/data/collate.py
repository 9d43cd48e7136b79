"""Collate groups into a batch: the only place that pads and shifts tokens.

The plain layout has one row `[prompt | response]` per response, the packed one a row per group, the
joined one a single row:

    group 0, response 0      p p p p a a a       p p p p a a a b b       p p p p a a a b b q q c c c
             response 1      p p p p b b .       q q c c c . . . .
    group 1, response 0      q q c c c . .

The flat list of targets contains, for every response token, the position of the hidden state that
predicts it, which is the one before it in the plain row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor

from ..cache.keys import media_key, response_keys
from ..errors import DataError, Problem
from ..records import (
    CacheKeys,
    EncodedGroup,
    EncoderInputs,
    GroupBatch,
    Layout,
    MediaInputs,
    MediaKind,
    ModelInputs,
    Targets,
    Unit,
    Units,
    chosen_of,
)
from .collate_media import collate_media
from .workers import error_of

__all__ = ["COUNTS", "GroupCollator", "collate", "collate_prompts"]

COUNTS = ("tokens", "positions", "targets", "images")
"""Numbers of a batch for the log: tokens, tokens with padding, response tokens, and images and
videos, without those of fillers. They are counted before the batch is moved to a device."""

PADDING = -1
"""Segment of padding."""

TowerInputs = Callable[[MediaKind, Mapping[str, Tensor]], EncoderInputs]
"""Computes arguments of the vision tower from the tensors of a kind of media."""


@dataclass(frozen=True, kw_only=True)
class GroupCollator:
    """The collate function of a data loader, with the options of `collate` and fillers.

    A filler is a group with weight 0 and an image or a video. It is added to batches without media
    of that kind, so that every process runs every part of the model, in the same order; there are
    none if that is not necessary.
    """

    pad_token_id: int
    padding_side: Literal["left", "right"] = "right"
    layout: Layout = "plain"
    media_once: bool = False
    keyed: bool = False
    tower_inputs: TowerInputs | None = None
    media_dtype: torch.dtype | None = None
    fillers: Mapping[MediaKind, EncodedGroup] = field(default_factory=dict)

    def __call__(self, groups: Sequence[EncodedGroup]) -> dict[str, Any]:
        """Return ``{"batch": GroupBatch, "counts": ...}``, see `COUNTS`.

        It is a mapping because the trainer moves only mappings to the device.

        If a data worker could not encode a row, return ``{"error": UniDPOError}``.
        """
        groups = list(groups)
        error = error_of(groups)
        if error is not None:
            return {"error": error}
        for kind, filler in self.fillers.items():
            if not any(group.media_inputs(kind) for group in groups):
                groups.append(filler)
        batch = collate(
            groups,
            pad_token_id=self.pad_token_id,
            padding_side=self.padding_side,
            layout=self.layout,
            media_once=self.media_once,
            keyed=self.keyed,
            tower_inputs=self.tower_inputs,
            media_dtype=self.media_dtype,
        )
        return {"batch": batch, "counts": _counts(groups, batch)}


def collate(
    groups: Sequence[EncodedGroup],
    *,
    pad_token_id: int,
    padding_side: Literal["left", "right"] = "right",
    layout: Layout = "plain",
    media_once: bool = False,
    keyed: bool = False,
    tower_inputs: TowerInputs | None = None,
    media_dtype: torch.dtype | None = None,
) -> GroupBatch:
    """Return the batch of groups. Padding side and layout do not change results.

    Args:
        groups: At least one group.
        pad_token_id: Id of padding.
        padding_side: Side of padding.
        layout: One row per response, one per group, or a single one.
        media_once: Whether plain rows share the media of their group: the batch then contains them
            once, with their order, and not once per row. Packed rows always do.
        keyed: Whether to add cache keys of responses, images and videos.
        tower_inputs: See `Adapter.tower_inputs`; `None` if the model computes them itself.
        media_dtype: The format of images and videos, which make up most of a batch's bytes; `None`
            for the processor's, float32. Under autocast to a 16-bit format, the vision tower rounds
            them before anything else.

    Raises:
        DataError: If there are no groups.
    """
    if not groups:
        raise DataError(Problem("batch", "there is no group", "Use at least one group"))
    units = {unit: _units(groups, unit) for unit in ("pair", "response")}
    groups = [*groups, *(group.view for group in groups if group.view is not None)]
    rows = _rows(groups, layout)
    grid = _Grid.of([row.ids.numel() for row in rows], padding_side, joined=layout == "joined")
    media = collate_media(groups, [row.group for row in rows], once=media_once, dtype=media_dtype)
    if tower_inputs is not None:
        media = {
            kind: replace(part, encoder=tower_inputs(kind, part.inputs))
            for kind, part in media.items()
        }
    return GroupBatch(
        inputs=_model_inputs(layout, rows, grid, pad_token_id, media),
        targets=_targets(rows, grid),
        scores=torch.cat([group.preferences.scores for group in groups]),
        pairs=units["pair"],
        responses=units["response"],
        sources=_sources(groups),
        cache_keys=_cache_keys(groups) if keyed else CacheKeys(),
    )


def collate_prompts(prompts: Sequence[EncodedGroup], *, pad_token_id: int) -> ModelInputs:
    """Return left-padded prompts [B, T] and their images, for generation."""
    rows = [_Row(group, ()) for group in prompts]
    grid = _Grid.of([row.ids.numel() for row in rows], "left", joined=False)
    media = collate_media(prompts, prompts, once=False)
    return _model_inputs("plain", rows, grid, pad_token_id, media)


@dataclass(frozen=True)
class _Row:
    """A prompt followed by one or several of its responses, without padding."""

    group: EncodedGroup
    numbers: tuple[int, ...]
    """Indices of the responses in the group."""

    @property
    def responses(self) -> list[Tensor]:
        return [self.group.response_ids[number] for number in self.numbers]

    @property
    def ids(self) -> Tensor:
        return torch.cat([self.group.prompt_ids, *self.responses])

    @property
    def extras(self) -> dict[str, Tensor]:
        return {
            name: torch.cat([parts[0], *(parts[1 + number] for number in self.numbers)])
            for name, parts in self.group.token_extras.items()
        }

    @property
    def segment(self) -> Tensor:
        branches = [torch.full_like(ids, 1 + n) for n, ids in enumerate(self.responses)]
        return torch.cat([torch.zeros_like(self.group.prompt_ids), *branches])

    @property
    def row_position(self) -> Tensor:
        first = self.group.prompt_ids.numel()
        after = [torch.arange(first, first + ids.numel()) for ids in self.responses]
        return torch.cat([torch.arange(first), *after])

    def predictors(self) -> list[Tensor]:
        """Return, for each response, the positions of the hidden states that predict its tokens.

        The last prompt token predicts the first token of every response; the other tokens are
        predicted by the ones before them in the response.
        """
        start = self.group.prompt_ids.numel()
        last = torch.tensor([start - 1])
        positions = []
        for ids in self.responses:
            positions.append(torch.cat([last, torch.arange(start, start + ids.numel() - 1)]))
            start += ids.numel()
        return positions


def _rows(groups: Sequence[EncodedGroup], layout: Layout) -> list[_Row]:
    """Return the rows of a layout; the responses keep their order."""
    rows = []
    for group in groups:
        numbers = range(len(group.response_ids))
        split = [(number,) for number in numbers] if layout == "plain" else [tuple(numbers)]
        rows += [_Row(group, taken) for taken in split]
    return rows


@dataclass(frozen=True)
class _Grid:
    """The shape [B, T] of a batch, and row and first position of each of its pieces."""

    shape: tuple[int, int]
    starts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, lengths: Sequence[int], side: str, *, joined: bool) -> "_Grid":
        """Return the grid with one row per piece, or with a single row of all pieces."""
        if joined:
            starts = accumulate(lengths[:-1], initial=0)
            return cls((1, sum(lengths)), tuple((0, start) for start in starts))
        width = max(lengths)
        firsts = [0 if side == "right" else width - length for length in lengths]
        return cls((len(lengths), width), tuple(enumerate(firsts)))

    def place(self, pieces: Sequence[Tensor], padding: int) -> Tensor:
        """Return a tensor [B, T] with the pieces at their positions."""
        tensor = torch.full(self.shape, padding, dtype=pieces[0].dtype)
        for piece, (row, start) in zip(pieces, self.starts, strict=True):
            tensor[row, start : start + piece.numel()] = piece
        return tensor


def _model_inputs(
    layout: Layout,
    rows: Sequence[_Row],
    grid: _Grid,
    pad_token_id: int,
    media: Mapping[MediaKind, MediaInputs],
) -> ModelInputs:
    return ModelInputs(
        layout=layout,
        tokens=_token_inputs(rows, grid, pad_token_id),
        media=media,
        segment=grid.place([row.segment for row in rows], PADDING),
        row_position=grid.place([row.row_position for row in rows], 0),
        spans=() if layout == "plain" else _spans(rows, grid),
    )


def _spans(rows: Sequence[_Row], grid: _Grid) -> tuple[tuple[int, ...], ...]:
    """Return the places of the groups, see `ModelInputs.spans`."""
    return tuple(
        (number, start, 0, row.group.prompt_ids.numel(), *(ids.numel() for ids in row.responses))
        for row, (number, start) in zip(rows, grid.starts, strict=True)
    )


def _token_inputs(rows: Sequence[_Row], grid: _Grid, pad_token_id: int) -> dict[str, Tensor]:
    inputs = {
        "input_ids": grid.place([row.ids for row in rows], pad_token_id),
        "attention_mask": grid.place([torch.ones_like(row.ids) for row in rows], 0),
    }
    for name in dict.fromkeys(name for row in rows for name in row.extras):
        tensors = [row.extras.get(name, torch.zeros_like(row.ids)) for row in rows]
        inputs[name] = grid.place(tensors, 0)
    return inputs


def _counts(groups: Sequence[EncodedGroup], batch: GroupBatch) -> dict[str, int]:
    tokens = batch.inputs.tokens
    return {
        "tokens": int(tokens["attention_mask"].sum()),
        "positions": tokens["input_ids"].numel(),
        "targets": batch.targets.ids.numel(),
        "images": sum(
            group.row.media + (group.view.row.media if group.view else 0)
            for group in groups
            if group.weight > 0
        ),
    }


def _cache_keys(groups: Sequence[EncodedGroup]) -> CacheKeys:
    keys = [(group, media_key(group)) for group in groups]
    return CacheKeys(
        responses=tuple(key for group, media in keys for key in response_keys(group, media)),
        images=tuple(
            (media, group.images.entries) for group, media in keys if group.images.entries
        ),
        videos=tuple(
            (f"{media}-videos", group.videos.entries)
            for group, media in keys
            if group.videos.entries
        ),
    )


def _targets(rows: Sequence[_Row], grid: _Grid) -> Targets:
    row, position, responses = [], [], []
    for batch_row, (number, start) in zip(rows, grid.starts, strict=True):
        for predictors, ids in zip(batch_row.predictors(), batch_row.responses, strict=True):
            row.append(torch.full((ids.numel(),), number))
            position.append(start + predictors)
            responses.append(ids)
    lengths = torch.tensor([ids.numel() for ids in responses])
    return Targets(
        row=torch.cat(row),
        position=torch.cat(position),
        ids=torch.cat(responses),
        response=torch.arange(len(responses)).repeat_interleave(lengths),
        lengths=lengths,
        row_ids=tuple(batch_row.group.row.id for batch_row in rows for _ in batch_row.numbers),
    )


def _sources(groups: Sequence[EncodedGroup]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(group.row.source for group in groups))


def _units(groups: Sequence[EncodedGroup], unit: Unit) -> Units:
    """Return the units of a loss, with indices into the responses of the batch."""
    indices, weights, ids, rows, first = [], [], [], [], 0
    for group in groups:
        for numbers, weight, unit_id in group.preferences.units(unit):
            indices.append([first + number for number in numbers])
            weights.append(group.weight * weight)
            ids.append(unit_id)
            rows.append(group.row)
        first += len(group.response_ids)
    width, sources = 2 if unit == "pair" else 1, _sources(groups)
    return Units(
        indices=torch.tensor(indices, dtype=torch.int64).reshape(-1, width),
        weight=torch.tensor(weights, dtype=torch.float64),
        source=torch.tensor([sources.index(row.source) for row in rows], dtype=torch.int64),
        ids=tuple(ids),
        row_ids=tuple(row.id for row in rows),
        domains=tuple(row.domain for row in rows),
        good=_labels(groups) if unit == "pair" else None,
        view=_views(groups, first) if unit == "pair" else None,
    )


def _labels(groups: Sequence[EncodedGroup]) -> Tensor | None:
    """Return the labels of the pairs, false for fillers; `None` if they are preferences."""
    labels = [pair.good for group in groups for pair in group.preferences.pairs]
    if all(label is None for label in labels):
        return None
    return torch.tensor([bool(label) for label in labels])


def _views(groups: Sequence[EncodedGroup], first: int) -> Tensor | None:
    """Return the place of each pair's chosen response with other images.

    Args:
        groups: The groups, whose views come after all of them.
        first: Number of responses of the groups.
    """
    places = []
    for group in groups:
        chosen = chosen_of(group.preferences.pairs)
        for pair in group.preferences.pairs:
            places.append(-1 if group.view is None else first + chosen.index(pair.chosen))
        first += 0 if group.view is None else len(group.view.response_ids)
    return torch.tensor(places) if any(place >= 0 for place in places) else None

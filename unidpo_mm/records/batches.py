"""Batches of groups as padded tensors."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ..errors import DataError, Problem
from .messages import MediaKind
from .rows import DOMAINS, Domain, Unit

__all__ = [
    "CacheKeys",
    "EncoderInputs",
    "GroupBatch",
    "Layout",
    "MediaInputs",
    "ModelInputs",
    "Targets",
    "Units",
]

Layout = Literal["plain", "packed", "joined"]
"""Contents of a batch row: a prompt with one of its responses (``plain``) or with all of them
(``packed``), or all groups of the batch (``joined``)."""


class TensorRecord:
    """A frozen dataclass with tensors, which checks itself only when it is built.

    A check reads tensors, so on a GPU it would wait for the device.
    """

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the record with every tensor on `device`."""
        has_float64 = torch.device(device).type != "mps"

        def move(tensor: Tensor) -> Tensor:
            if tensor.dtype == torch.float64 and not has_float64:
                tensor = tensor.float()
            return tensor.to(device, non_blocking=non_blocking)

        return self._with_tensors(move)

    def pin_memory(self) -> Self:
        """Return the record in page-locked memory; called by torch's data loader."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the record with changed tensors, without `__init__` and so without a check."""
        changed = object.__new__(type(self))
        for name, value in vars(self).items():
            object.__setattr__(changed, name, _changed(value, change))
        return changed


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, TensorRecord):
        return value._with_tensors(change)
    if isinstance(value, Mapping):
        return {name: _changed(item, change) for name, item in value.items()}
    return value


@dataclass(frozen=True)
class EncoderInputs(TensorRecord):
    """Arguments of a vision tower that its family computes from sizes before a batch is moved.

    Attributes:
        tensors: name -> tensor.
        ends: name -> ends of sequences, as numbers, because the host needs them in every layer.
        grids: name -> the size of each image (or video), as numbers for the same reason.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    ends: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    grids: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class MediaInputs(TensorRecord):
    """The images (or the videos) of a batch.

    Attributes:
        inputs: name -> tensor over the media of all batch rows.
        order: For each part of the features in the batch rows, its index in those that the model
            computes from `inputs`; `None` if the order is the same. Parts are counted as in
            `Media.entries`.
        encoder: What the tower computes from sizes; empty if it computes it itself.
    """

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    order: tuple[int, ...] | None = None
    encoder: EncoderInputs = field(default_factory=EncoderInputs)


@dataclass(frozen=True, kw_only=True)
class ModelInputs(TensorRecord):
    """The inputs of a model for a batch.

    Attributes:
        layout: ``plain`` (one batch row per response), ``packed`` (one per group) or ``joined``
            (one for all groups, without padding).
        tokens: name -> [B, T]; always ``input_ids`` and ``attention_mask``.
        media: Kind -> the media of all batch rows; empty without media.
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position of a token in its plain row.
        spans: For each group of packed rows, its row, the position of its first token, 0, and the
            number of tokens of the prompt and of each response; empty for plain rows.
        positions: [3, B, T], the positions of models with several positions per token, if they
            were counted before the forward pass; `None` if the model counts them, or has one
            position per token.
    """

    layout: Layout
    tokens: Mapping[str, Tensor]
    media: Mapping[MediaKind, MediaInputs]
    segment: Tensor
    row_position: Tensor
    spans: tuple[tuple[int, ...], ...] = ()
    positions: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.tokens["input_ids"].shape
        for name, tensor in {**self.tokens, "segment": self.segment}.items():
            if tensor.shape != shape:
                text = f"'{name}' has shape {tuple(tensor.shape)}, but the ids have {tuple(shape)}"
                raise DataError(Problem("batch", text, "Pad every token-aligned tensor alike"))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of tokens and media by name, as keyword arguments of a model."""
        media = (item for kind in self.media.values() for item in kind.inputs.items())
        return {**self.tokens, **dict(media)}

    @property
    def images(self) -> MediaInputs:
        """The images of all batch rows; empty without images."""
        return self.media.get("image", MediaInputs())

    @property
    def media_orders(self) -> dict[MediaKind, tuple[int, ...]]:
        """The order of the media of each kind, see `MediaInputs.order`; none if it is the same."""
        orders = {kind: media.order for kind, media in self.media.items()}
        return {kind: order for kind, order in orders.items() if order is not None}

    @property
    def encoders(self) -> dict[MediaKind, EncoderInputs]:
        """The arguments of the towers that were computed before, by kind of media."""
        return {kind: media.encoder for kind, media in self.media.items()}


@dataclass(frozen=True, kw_only=True)
class Targets(TensorRecord):
    """The M response tokens of a batch, whose log-probs are computed.

    Attributes:
        row, position: [M], batch row and position of the hidden state that predicts each token.
        ids: [M], the token ids.
        response: [M], the response n that each token belongs to.
        lengths: [N], the number of tokens of each response.
        row_ids: Row ids of the N responses.
        sizes: `lengths` as numbers, so that the host does not have to read them from a device.
    """

    row: Tensor
    position: Tensor
    ids: Tensor
    response: Tensor
    lengths: Tensor
    row_ids: tuple[str, ...]
    sizes: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.lengths.tolist()))
        empty = [number for number, size in enumerate(self.sizes) if size <= 0]
        if empty:
            rows = ", ".join(dict.fromkeys(self.row_ids[number] for number in empty))
            problem = Problem(f"row {rows}", "a response has no token", "Remove the row")
            raise DataError(problem)
        counts = torch.bincount(self.response, minlength=self.lengths.numel())
        if not torch.equal(counts, self.lengths):
            wrong = (counts != self.lengths).nonzero().flatten().tolist()
            rows = ", ".join(self.row_ids[number] for number in wrong)
            text = "targets do not cover the responses"
            raise DataError(Problem(f"batch with rows {rows}", text, "Report it"))


@dataclass(frozen=True, kw_only=True)
class Units(TensorRecord):
    """The units that a loss averages over: the P pairs, or U responses, of a batch.

    Attributes:
        indices: [P, 2] chosen and rejected response of each pair, or [U, 1] the response, as
            indices into the N responses.
        weight: [U] float64, 0 for fillers.
        source: [U], index into the sources of the batch.
        ids: The stable id of each unit, see `PreferenceRow.pair_id` and `response_id`.
        row_ids: Row ids; those of joined rows combine several names.
        domains: Domains.
        good: [P] bool, for losses of labeled responses: whether the response is good. It is the
            first of its pair, and the second one is a mismatched response. `None` for preferences.
        view: [P] index into the N responses: the chosen response with the other images of its row;
            -1 for rows without. `None` if no row has other images.
        same_first: [U], the number of units of the batch with the same first response. It follows
            from `indices`, and is computed on the CPU because a GPU would have to be waited for.
        members: [1 + D, U] bool, the units of all domains and of each of the D `DOMAINS`; it
            follows from `domains`.
    """

    indices: Tensor
    weight: Tensor
    source: Tensor
    ids: tuple[str, ...]
    row_ids: tuple[str, ...]
    domains: tuple[Domain, ...]
    good: Tensor | None = None
    view: Tensor | None = None
    same_first: Tensor = field(init=False, repr=False)
    members: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = [f.name for f in dataclasses.fields(self) if f.init]
        sizes = {name: len(value) for name in names if (value := getattr(self, name)) is not None}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the units of a batch have different numbers of entries: {sizes}")
        first = self.indices[:, 0]
        object.__setattr__(self, "same_first", torch.bincount(first)[first])
        inside = [[name == domain for name in self.domains] for domain in DOMAINS]
        members = torch.tensor([[True] * len(self.ids), *inside], dtype=torch.bool)
        object.__setattr__(self, "members", members)

    def __len__(self) -> int:
        """Return the number of units, fillers included."""
        return len(self.ids)

    @property
    def chosen(self) -> Tensor:
        """The chosen response of each pair, [P]."""
        return self.indices[:, 0]

    @property
    def rejected(self) -> Tensor:
        """The rejected response of each pair, [P]."""
        return self.indices[:, 1]


@dataclass(frozen=True)
class CacheKeys:
    """The keys of a batch in caches across batches; empty unless requested.

    Attributes:
        responses: Digests of what a model sees of each of the N responses.
        images: For each group with images, in their order, the key of all its images and the number
            of their feature entries.
        videos: The same for videos.
    """

    responses: tuple[str, ...] = ()
    images: tuple[tuple[str, int], ...] = ()
    videos: tuple[tuple[str, int], ...] = ()

    @property
    def media(self) -> dict[MediaKind, tuple[tuple[str, int], ...]]:
        """The keys of images and videos by kind."""
        return {"image": self.images, "video": self.videos}


@dataclass(frozen=True, kw_only=True)
class GroupBatch(TensorRecord):
    """Several groups as padded tensors, with the flat list of targets.

    Attributes:
        inputs: What the model sees.
        targets: The response tokens.
        scores: [N] float64, NaN if missing.
        pairs: The units of a loss with unit ``pair``.
        responses: The units of a loss with unit ``response``; other responses are not among them.
        sources: Names of the sources of this batch.
        cache_keys: Keys of responses and images.
    """

    inputs: ModelInputs
    targets: Targets
    scores: Tensor
    pairs: Units
    responses: Units
    sources: tuple[str, ...]
    cache_keys: CacheKeys = CacheKeys()

    def units(self, unit: Unit) -> Units:
        """Return the units of a loss."""
        return self.pairs if unit == "pair" else self.responses

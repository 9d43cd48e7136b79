"""Inputs of a model: rows as token ids, and batches of them as padded tensors."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import torch
from torch import Tensor

from ..errors import DataError, Problem
from .rows import Domain, Pair

__all__ = ["EncodedGroup", "GroupBatch", "Layout"]

Layout = Literal["plain", "packed", "joined"]
"""Contents of a batch row: a prompt with one of its responses (``plain``) or with all of them
(``packed``), or all groups of the batch (``joined``)."""


@dataclass(frozen=True, kw_only=True)
class EncodedGroup:
    """A row encoded for one model family: token ids and tensors, without padding.

    Further inputs are of two kinds. *Token-aligned* tensors have one entry per token and are padded
    and cut with the ids; *image-aligned* tensors belong to the images and are never cut.

    Attributes:
        row_id, domain, source, where: As in the row.
        prompt_ids: Prompt tokens [P], image placeholders expanded.
        response_ids: K tensors [R_k], the tokens whose log-probs are computed.
        token_extras: name -> (prompt part [P], K response parts [R_k]).
        image_extras: name -> tensor whose first dimension runs over images (or their patches).
        num_images: The number of images in the image-aligned tensors.
        image_tokens: The number of placeholder tokens in `prompt_ids`, which equals the number of
            image features; 0 without images.
        image_token_id: Id of the placeholder token; `None` for families without images.
        scores: [K] float64, NaN if missing.
        pairs: Preferences among the K responses.
        targets: Indices of the responses that a loss with unit ``response`` trains on.
        weight: 1, or 0 for a filler, which no loss or metric counts.
        cut_responses: The number of responses truncated to fit `max_length`.
        shrunk_images: The number of images scaled down to fit `max_length`.
    """

    row_id: str
    domain: Domain
    source: str
    where: str
    prompt_ids: Tensor
    response_ids: tuple[Tensor, ...]
    token_extras: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    image_extras: Mapping[str, Tensor] = field(default_factory=dict)
    num_images: int = 0
    image_tokens: int = 0
    image_token_id: int | None = None
    scores: Tensor
    pairs: tuple[Pair, ...]
    targets: tuple[int, ...]
    weight: float = 1.0
    cut_responses: int = 0
    shrunk_images: int = 0

    def __post_init__(self) -> None:
        problems = [
            *self._response_problems(),
            *self._token_extra_problems(),
            *self._image_problems(),
        ]
        if problems:
            raise DataError(problems)

    def _response_problems(self) -> list[Problem]:
        if self.prompt_ids.numel() == 0:
            return [self._problem("the prompt has no token", "Write a prompt")]
        return [
            self._problem(
                f"response {number} has no token", "Write a response, or increase max_length"
            )
            for number, ids in enumerate(self.response_ids)
            if ids.numel() == 0
        ]

    def _token_extra_problems(self) -> list[Problem]:
        lengths = [self.prompt_ids.numel(), *(ids.numel() for ids in self.response_ids)]
        return [
            self._problem(
                f"'{name}' has lengths {[part.numel() for part in parts]}, the ids {lengths}",
                "Fix the adapter: token-aligned tensors have one entry per token",
            )
            for name, parts in self.token_extras.items()
            if [part.numel() for part in parts] != lengths
        ]

    def _image_problems(self) -> list[Problem]:
        if self.image_token_id is None:
            return []
        placeholders = int((self.prompt_ids == self.image_token_id).sum())
        problems = []
        if placeholders != self.image_tokens:
            message = f"{placeholders} image tokens for {self.image_tokens} image features"
            remedy = "Use one image per placeholder; image tokens are never cut"
            problems.append(self._problem(message, remedy))
        if any(bool((ids == self.image_token_id).any()) for ids in self.response_ids):
            remedy = "Remove the placeholder from the response: images belong to the prompt"
            problems.append(self._problem("a response contains an image token", remedy))
        return problems

    def _problem(self, message: str, remedy: str) -> Problem:
        return Problem(f"{self.where} (id {self.row_id})", message, remedy)

    @property
    def tokens(self) -> int:
        """The number of tokens of the plain rows, which contain the prompt once per response."""
        lengths = [ids.numel() for ids in self.response_ids]
        return len(lengths) * self.prompt_ids.numel() + sum(lengths)


@dataclass(frozen=True, kw_only=True)
class GroupBatch:
    """Several groups as padded tensors, and the flat list of what is scored.

    Attributes:
        layout: ``plain`` (one row per response), ``packed`` (one row per group) or ``joined`` (one
            row for all groups, nothing padded).
        token_inputs: name -> [B, T]; always ``input_ids`` and ``attention_mask``.
        image_inputs: name -> tensor over the images of all rows; empty without images.
        image_order: For every image of the rows, which of those in `image_inputs` it is; None
            where they stand there row by row.
        segment: [B, T], 0 for the prompt, j for branch j, -1 for padding.
        row_position: [B, T], the position of a token in its plain row.
        row, position: [M], where the hidden state that predicts target m stands.
        target_ids: [M], the token predicted there.
        response: [M], the response n that target m belongs to.
        lengths: [N] response tokens.
        scores: [N] float64, NaN where there is none.
        chosen, rejected: [P] indices into the N responses.
        pair_weight: [P] float64, 0 for fillers.
        pair_source: [P] index into `sources`.
        targets: [U] indices into the N responses, units of a loss of unit ``response``.
        target_weight: [U] float64, 0 for fillers.
        sources: Names of the sources of this batch.
        pair_rows, target_rows: Row ids of the P pairs and U targets.
        pair_domains, target_domains: Their domains.
        response_rows: Row ids of the N responses.
        response_keys: Digests of what a model sees of each response; empty unless requested.
        image_digests: For each group with images, in their order, the digest of all its images
            and how many there are; empty unless requested.
    """

    layout: Layout
    token_inputs: Mapping[str, Tensor]
    image_inputs: Mapping[str, Tensor]
    image_order: tuple[int, ...] | None = None
    segment: Tensor
    row_position: Tensor
    row: Tensor
    position: Tensor
    target_ids: Tensor
    response: Tensor
    lengths: Tensor
    scores: Tensor
    chosen: Tensor
    rejected: Tensor
    pair_weight: Tensor
    pair_source: Tensor
    targets: Tensor
    target_weight: Tensor
    sources: tuple[str, ...]
    pair_rows: tuple[str, ...]
    target_rows: tuple[str, ...]
    pair_domains: tuple[Domain, ...]
    target_domains: tuple[Domain, ...]
    response_rows: tuple[str, ...]
    response_keys: tuple[str, ...] = ()
    image_digests: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        counted = torch.bincount(self.response, minlength=self.lengths.numel())
        if not torch.equal(counted, self.lengths):
            wrong = (counted != self.lengths).nonzero().flatten().tolist()
            rows = ", ".join(self.response_rows[number] for number in wrong)
            raise DataError(
                Problem(
                    f"batch with rows {rows}", "targets do not cover the responses", "Report it"
                )
            )
        shape = self.token_inputs["input_ids"].shape
        for name, tensor in {**self.token_inputs, "segment": self.segment}.items():
            if tensor.shape != shape:
                problem = f"'{name}' has shape {tuple(tensor.shape)} beside ids {tuple(shape)}"
                raise DataError(Problem("batch", problem, "Pad every token-aligned tensor alike"))

    @property
    def num_pairs(self) -> int:
        """Pairs, fillers included."""
        return self.chosen.numel()

    @property
    def num_responses(self) -> int:
        """Responses, fillers included."""
        return self.lengths.numel()

    def unit_weight(self, unit: Literal["pair", "response"]) -> Tensor:
        """Return the weights of the units of a loss, [P] or [U], zero for fillers."""
        return self.pair_weight if unit == "pair" else self.target_weight

    def unit_domains(self, unit: Literal["pair", "response"]) -> tuple[Domain, ...]:
        """Return the domain of each unit of a loss."""
        return self.pair_domains if unit == "pair" else self.target_domains

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return the batch with every tensor on `device`."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                if value.dtype == torch.float64 and torch.device(device).type == "mps":
                    value = value.float()  # that device has no float64
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, Mapping):
                return {name: move(tensor) for name, tensor in value.items()}
            return value

        moved = {f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Self:
        """Return the batch in page-locked memory; called by torch's data loader."""

        def pin(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.pin_memory()
            if isinstance(value, Mapping):
                return {name: pin(tensor) for name, tensor in value.items()}
            return value

        pinned = {f.name: pin(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **pinned)

"""Rows encoded for one model family, without padding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import DataError, Problem
from .messages import MediaKind
from .rows import Domain, Pair, PreferenceRow, Unit

__all__ = ["EncodedGroup", "Media", "Preferences", "RowInfo"]


@dataclass(frozen=True, kw_only=True)
class RowInfo:
    """The properties of a row that messages and metrics need.

    Attributes:
        id, domain, source, where: As in the row.
        media: Number of images and videos.
    """

    id: str
    domain: Domain
    source: str
    where: str
    media: int = 0

    @classmethod
    def of(cls, row: PreferenceRow) -> "RowInfo":
        """Return the information about a row."""
        return cls(
            id=row.id,
            domain=row.domain,
            source=row.source,
            where=row.where,
            media=len(row.media),
        )


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Scores of the K responses of a group, and the units of a loss among them.

    Attributes:
        scores: [K] float64, NaN if missing.
        pairs: Preferences among the K responses.
        pair_ids: The id of each pair, see `PreferenceRow.pair_id`.
        response_units: Indices of the responses that a loss with unit ``response`` trains on.
        response_unit_ids: The id of each of them, see `PreferenceRow.response_id`.
    """

    scores: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    pairs: tuple[Pair, ...] = ()
    pair_ids: tuple[str, ...] = ()
    response_units: tuple[int, ...] = ()
    response_unit_ids: tuple[str, ...] = ()

    @classmethod
    def of(cls, row: PreferenceRow) -> "Preferences":
        """Return the preferences of a row among its responses."""
        scores = [float("nan") if r.score is None else r.score for r in row.responses]
        return cls(
            scores=torch.tensor(scores, dtype=torch.float64),
            pairs=row.pairs,
            pair_ids=tuple(row.pair_id(pair) for pair in row.pairs),
            response_units=row.targets(),
            response_unit_ids=tuple(row.response_id(number) for number in row.targets()),
        )

    def units(self, unit: Unit) -> Iterator[tuple[tuple[int, ...], float, str]]:
        """Yield indices of responses, weight and id of each unit of a loss."""
        if unit == "pair":
            for pair, pair_id in zip(self.pairs, self.pair_ids, strict=True):
                yield (pair.chosen, pair.rejected), pair.weight, pair_id
        else:
            for number, name in zip(self.response_units, self.response_unit_ids, strict=True):
                yield (number,), 1.0, name


@dataclass(frozen=True, kw_only=True)
class Media:
    """The images (or the videos) of a prompt, as tensors.

    Attributes:
        inputs: name -> tensor whose first dimension runs over images or videos, or their tiles or
            patches. Families that take frames as images have them among the images.
            These tensors are never cut.
        entries: The number of parts in which the model returns the features: images, videos, tiles
            or rows, depending on the family.
        tokens: The number of placeholder tokens in the prompt, which equals the number of features.
        token_id: Id of the placeholder token; `None` for families without such media.
        shrunk: The number of images scaled down, or of videos with fewer or smaller frames, to fit
            `max_length`.
    """

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    entries: int = 0
    tokens: int = 0
    token_id: int | None = None
    shrunk: int = 0


@dataclass(frozen=True, kw_only=True)
class EncodedGroup:
    """A row encoded for one model family: token ids and tensors, without padding.

    Further inputs are of two kinds. *Token-aligned* tensors have one entry per token and are padded
    and cut with the ids; *media* tensors belong to images or videos and are never cut.

    Attributes:
        row: Id, domain, source and place of the row.
        prompt_ids: Prompt tokens [P], placeholders of media expanded.
        response_ids: K tensors [R_k], the tokens whose log-probs are computed.
        token_extras: name -> (prompt part [P], K response parts [R_k]).
        media: Kind -> the media of the prompt. A family with images adds this kind to every group,
            so that placeholder tokens without an image are refused.
        preferences: Scores, pairs and other units among the K responses.
        weight: 1, or 0 for a filler, which no loss or metric counts.
        cut_responses: The number of responses truncated to fit `max_length`.
        view: The chosen responses to the other images of the row (`PreferenceRow.other_images`),
            without units; `None` if it has none.
    """

    row: RowInfo
    prompt_ids: Tensor
    response_ids: tuple[Tensor, ...]
    token_extras: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    media: Mapping[MediaKind, Media] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    weight: float = 1.0
    cut_responses: int = 0
    view: "EncodedGroup | None" = None

    def __post_init__(self) -> None:
        problems = [
            *self._token_problems(),
            *(problem for kind in self.media for problem in self._media_problems(kind)),
        ]
        if problems:
            raise DataError(problems)

    def _token_problems(self) -> Iterator[Problem]:
        prompt, *responses = [ids.numel() for ids in (self.prompt_ids, *self.response_ids)]
        if prompt == 0:
            yield self._problem("the prompt has no token", "Write a prompt")
        for number, length in enumerate(responses if prompt else ()):
            if length == 0:
                text = f"response {number} has no token"
                yield self._problem(text, "Write a response, or increase max_length")
        for name, parts in self.token_extras.items():
            lengths = [part.numel() for part in parts]
            if lengths != [prompt, *responses]:
                yield self._problem(
                    f"'{name}' has lengths {lengths}, the ids {[prompt, *responses]}",
                    "Fix the adapter: token-aligned tensors have one entry per token",
                )

    def _media_problems(self, kind: MediaKind) -> Iterator[Problem]:
        media = self.media[kind]
        if media.token_id is None:
            return
        placeholders = int((self.prompt_ids == media.token_id).sum())
        if placeholders != media.tokens:
            message = f"{placeholders} {kind} tokens for {media.tokens} {kind} features"
            yield self._problem(
                message, f"Use one {kind} per placeholder; {kind} tokens are never cut"
            )
        if any(bool((ids == media.token_id).any()) for ids in self.response_ids):
            remedy = f"Remove the placeholder from the response: {kind}s belong to the prompt"
            yield self._problem(f"a response contains {kind} tokens", remedy)

    def _problem(self, message: str, remedy: str) -> Problem:
        return Problem(f"{self.row.where} (id {self.row.id})", message, remedy)

    @property
    def images(self) -> Media:
        """The images of the prompt; empty for families without images."""
        return self.media.get("image", Media())

    @property
    def videos(self) -> Media:
        """The videos of the prompt; empty for families without videos."""
        return self.media.get("video", Media())

    def media_inputs(self, kind: MediaKind) -> Mapping[str, Tensor]:
        """Return the tensors of a kind of media; none if the prompt has no such media."""
        return self.media[kind].inputs if kind in self.media else {}

    @property
    def tokens(self) -> int:
        """The number of tokens of the plain rows, which contain the prompt once per response."""
        lengths = [ids.numel() for ids in self.response_ids]
        return len(lengths) * self.prompt_ids.numel() + sum(lengths)

"""The nouns of the flow, each a frozen record that checks its own invariants.

    PreferenceRow -> EncodedGroup -> GroupBatch -> SequenceLogps -> PairLogps -> LossOutput

Letters in shapes: B rows of a batch, T positions, K responses of a group, N responses of a batch,
M response tokens of a batch, P pairs, U units of a response loss, S sources. Every error names the
id of the row at fault. This module imports torch and nothing heavier.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from .errors import DataError, Problem

__all__ = [
    "DOMAINS",
    "ROLES",
    "Domain",
    "EncodedGroup",
    "GroupBatch",
    "ImageRef",
    "ImageSlot",
    "Layout",
    "LossOutput",
    "Message",
    "Pair",
    "PairLogps",
    "PreferenceRow",
    "Response",
    "SequenceLogps",
]

Domain = Literal["text", "math", "multimodal"]
DOMAINS: tuple[Domain, ...] = ("text", "math", "multimodal")
Layout = Literal["plain", "packed"]
ROLES = ("system", "user", "assistant", "tool")


class ImageRef(Protocol):
    """A picture that is opened where it is needed, so that a row stays small."""

    def open(self) -> Any:
        """Returns a `PIL.Image.Image` in RGB; raises DataError when it cannot be read."""
        ...

    def describe(self) -> str:
        """Says which picture this is, for messages."""
        ...

    def key(self) -> str:
        """Returns a string that is equal for equal pictures."""
        ...


@dataclass(frozen=True, slots=True)
class ImageSlot:
    """The place of one picture inside a message; pictures fill the slots in order."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a prompt.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        parts: Text and picture slots in reading order.
    """

    role: str
    parts: tuple[str | ImageSlot, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def image_slots(self) -> int:
        """How many pictures belong into this message."""
        return sum(isinstance(part, ImageSlot) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Response:
    """One answer to a prompt; `score` is its external quality, None if nobody scored it."""

    text: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference: indices into the responses of its group, and the weight of the pair."""

    chosen: int
    rejected: int
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class PreferenceRow:
    """One prompt with its pictures, its responses and the preferences among them.

    Attributes:
        id: Name of the row in messages and in the ledger; unique within a run.
        domain: ``text``, ``math`` or ``multimodal``.
        source: Name of the data source that the row came from.
        where: File and row number, for messages.
        messages: The prompt.
        images: Pictures, in the order of the slots in `messages`.
        responses: K >= 1 answers.
        pairs: Preferences; empty only for losses whose unit is the response.
        raw: The prompt was a plain string, to be rendered without a chat template where the
            model has none.

    Raises:
        DataError: If a field breaks its invariant; all problems of the row at once.
    """

    id: str
    domain: Domain
    source: str
    where: str
    messages: tuple[Message, ...]
    images: tuple[ImageRef, ...] = ()
    responses: tuple[Response, ...]
    pairs: tuple[Pair, ...] = ()
    raw: bool = False

    def __post_init__(self) -> None:
        problems = [*self._prompt_problems(), *self._response_problems(), *self._pair_problems()]
        if problems:
            raise DataError(problems)

    def _prompt_problems(self) -> list[Problem]:
        problems = []
        slots = sum(message.image_slots for message in self.messages)
        if not any(message.text.strip() for message in self.messages) and slots == 0:
            problems.append(self._problem("prompt", "the prompt is empty", "Write a prompt"))
        for message in self.messages:
            if message.role not in ROLES:
                found = f"a message has the role '{message.role}'"
                problems.append(self._problem("prompt", found, f"Use one of {', '.join(ROLES)}"))
        if slots != len(self.images):
            found = f"{len(self.images)} picture(s) for {slots} picture placeholder(s)"
            remedy = "Give exactly one picture per placeholder, in the same order"
            problems.append(self._problem("images", found, remedy))
        return problems

    def _response_problems(self) -> list[Problem]:
        problems = []
        if not self.responses:
            found, remedy = "there is no response", "Give at least one answer"
            problems.append(self._problem("responses", found, remedy))
        for number, response in enumerate(self.responses):
            if not response.text.strip():
                remedy = "Write the answer or remove the row"
                problems.append(self._problem(self._name(number), "the answer is empty", remedy))
            if response.score is not None and not math.isfinite(response.score):
                found = f"the score is {response.score}"
                remedy = "Give a finite number, or leave the score out"
                problems.append(self._problem(self._score_name(number), found, remedy))
        return problems

    def _pair_problems(self) -> list[Problem]:
        problems = []
        for pair in self.pairs:
            if not {pair.chosen, pair.rejected} <= set(range(len(self.responses))):
                found = f"a pair names responses {pair.chosen} and {pair.rejected}"
                remedy = f"Name responses 0 to {len(self.responses) - 1}"
                problems.append(self._problem("pairs", found, remedy))
                continue
            chosen, rejected = self.responses[pair.chosen], self.responses[pair.rejected]
            if chosen.text == rejected.text:
                found = f"chosen and rejected are the same answer ({_short(chosen.text)})"
                remedy = "Give two different answers or remove the row"
                problems.append(self._problem("chosen", found, remedy))
            if not (math.isfinite(pair.weight) and pair.weight >= 0):
                found = f"the weight of a pair is {pair.weight}"
                problems.append(self._problem("weight", found, "Give a finite number >= 0"))
        return problems

    def _is_plain_pair(self) -> bool:
        return len(self.responses) == 2 and len(self.pairs) == 1

    def _name(self, number: int) -> str:
        if not self._is_plain_pair():
            return f"responses[{number}]"
        return "chosen" if number == self.pairs[0].chosen else "rejected"

    def _score_name(self, number: int) -> str:
        name = self._name(number)
        return f"score_{name}" if self._is_plain_pair() else f"{name}.score"

    def _problem(self, name: str, found: str, remedy: str) -> Problem:
        return Problem(f"{self.where}, field '{name}'", found, remedy)

    def missing_scores(self) -> list[Problem]:
        """Returns a problem for each response of a pair that has no score."""
        paired = {number for pair in self.pairs for number in (pair.chosen, pair.rejected)}
        remedy = (
            "Give a finite score to every answer, or choose a loss that needs none (dpo, simpo)"
        )
        return [
            self._problem(self._score_name(number), "the score is missing", remedy)
            for number in sorted(paired)
            if self.responses[number].score is None
        ]

    def targets(self) -> tuple[int, ...]:
        """Returns the responses that a loss of unit ``response`` learns from.

        The chosen answers, each once; without pairs the best scored answer, or the first one.
        """
        if self.pairs:
            return tuple(sorted({pair.chosen for pair in self.pairs if pair.weight > 0}))
        scores = [
            -math.inf if response.score is None else response.score for response in self.responses
        ]
        return (max(range(len(scores)), key=scores.__getitem__),)

    def for_responses(self) -> "PreferenceRow":
        """Returns the row with its target responses alone, for losses of unit ``response``."""
        kept = tuple(self.responses[number] for number in self.targets())
        return dataclasses.replace(self, responses=kept, pairs=())


@dataclass(frozen=True, kw_only=True)
class EncodedGroup:
    """A row as one model family sees it: token ids and tensors, nothing padded.

    Side tensors live in two bags. *Token-aligned* tensors have one entry per token and are padded
    and cut with the ids; *image-aligned* tensors belong to the pictures and are never cut.

    Attributes:
        row_id, domain, source, where: As in the row.
        prompt_ids: Prompt tokens [P], picture placeholders expanded.
        response_ids: K tensors [R_k], the tokens that are scored.
        token_extras: name -> (prompt part [P], K response parts [R_k]).
        image_extras: name -> tensor whose first dimension runs over pictures (or their patches).
        image_tokens: Placeholder tokens in `prompt_ids`, equal to the features that the pictures
            will fill; 0 without pictures.
        image_token_id: Id of the placeholder token; None for families without pictures.
        scores: [K] float64, NaN where there is none.
        pairs: Preferences among the K responses.
        targets: Responses that a loss of unit ``response`` learns from.
        weight: 0 for a filler that no loss, metric or ledger counts.
        cut_responses: How many responses were shortened to fit `max_length`.
    """

    row_id: str
    domain: Domain
    source: str
    where: str
    prompt_ids: Tensor
    response_ids: tuple[Tensor, ...]
    token_extras: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    image_extras: Mapping[str, Tensor] = field(default_factory=dict)
    image_tokens: int = 0
    image_token_id: int | None = None
    scores: Tensor
    pairs: tuple[Pair, ...]
    targets: tuple[int, ...]
    weight: float = 1.0
    cut_responses: int = 0

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
            self._problem(f"response {number} has no token", "Write an answer, or raise max_length")
            for number, ids in enumerate(self.response_ids)
            if ids.numel() == 0
        ]

    def _token_extra_problems(self) -> list[Problem]:
        lengths = [self.prompt_ids.numel(), *(ids.numel() for ids in self.response_ids)]
        return [
            self._problem(
                f"'{name}' has lengths {[part.numel() for part in parts]} beside ids of {lengths}",
                "Repair the adapter: token-aligned tensors have one entry per token",
            )
            for name, parts in self.token_extras.items()
            if [part.numel() for part in parts] != lengths
        ]

    def _image_problems(self) -> list[Problem]:
        if self.image_token_id is None:
            return []
        found = int((self.prompt_ids == self.image_token_id).sum())
        problems = []
        if found != self.image_tokens:
            message = f"{found} picture tokens for {self.image_tokens} picture features"
            remedy = "Give one picture per placeholder; a picture token is never cut"
            problems.append(self._problem(message, remedy))
        if any(bool((ids == self.image_token_id).any()) for ids in self.response_ids):
            remedy = "Remove the placeholder from the answer: pictures belong to the prompt"
            problems.append(self._problem("a response holds a picture token", remedy))
        return problems

    def _problem(self, found: str, remedy: str) -> Problem:
        return Problem(f"{self.where} (id {self.row_id})", found, remedy)

    @property
    def tokens(self) -> int:
        """Tokens of the plain rows: the prompt once per response, and the responses."""
        lengths = [ids.numel() for ids in self.response_ids]
        return len(lengths) * self.prompt_ids.numel() + sum(lengths)


@dataclass(frozen=True, kw_only=True)
class GroupBatch:
    """Several groups as padded tensors, and the flat list of what is scored.

    Attributes:
        layout: ``plain`` (one row per response) or ``packed`` (one row per group).
        token_inputs: name -> [B, T]; always ``input_ids`` and ``attention_mask``.
        image_inputs: name -> tensor over the pictures of all rows; empty without pictures.
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
    """

    layout: Layout
    token_inputs: Mapping[str, Tensor]
    image_inputs: Mapping[str, Tensor]
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
                found = f"'{name}' has shape {tuple(tensor.shape)} beside ids {tuple(shape)}"
                raise DataError(Problem("batch", found, "Pad every token-aligned tensor alike"))

    @property
    def num_pairs(self) -> int:
        """Pairs, fillers included."""
        return self.chosen.numel()

    @property
    def num_responses(self) -> int:
        """Responses, fillers included."""
        return self.lengths.numel()

    def unit_weight(self, unit: Literal["pair", "response"]) -> Tensor:
        """Returns the weights of the units of a loss, [P] or [U], zero for fillers."""
        return self.pair_weight if unit == "pair" else self.target_weight

    def unit_domains(self, unit: Literal["pair", "response"]) -> tuple[Domain, ...]:
        """Returns the domain of each unit of a loss."""
        return self.pair_domains if unit == "pair" else self.target_domains

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Returns the batch with every tensor on `device`."""

        def move(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(device, non_blocking=non_blocking)
            if isinstance(value, Mapping):
                return {name: move(tensor) for name, tensor in value.items()}
            return value

        moved = {f.name: move(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **moved)

    def pin_memory(self) -> Self:
        """Returns the batch in page-locked memory; called by torch's data loader."""

        def pin(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.pin_memory()
            if isinstance(value, Mapping):
                return {name: pin(tensor) for name, tensor in value.items()}
            return value

        pinned = {f.name: pin(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return dataclasses.replace(self, **pinned)


@dataclass(frozen=True)
class SequenceLogps:
    """Log-probabilities of whole responses.

    Attributes:
        sum: [N] float64, the summed log-probability of each response.
        length: [N] float64, its number of tokens.
        row_ids: Row ids of the N responses, for messages.
    """

    sum: Tensor
    length: Tensor
    row_ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sum.shape != self.length.shape:
            raise ValueError(f"sums {tuple(self.sum.shape)}, lengths {tuple(self.length.shape)}")
        empty = (self.length <= 0).nonzero().flatten().tolist()
        if empty:
            rows = ", ".join(self.row_ids[n] if n < len(self.row_ids) else str(n) for n in empty)
            problem = Problem(f"row {rows}", "a response has no token", "Remove the row")
            raise DataError(problem)

    @property
    def mean(self) -> Tensor:
        """[N], the log-probability a token."""
        return self.sum / self.length

    def select(self, index: Tensor) -> "SequenceLogps":
        """Returns the responses at `index` [N'] in that order."""
        rows = tuple(self.row_ids[n] for n in index.tolist()) if self.row_ids else ()
        return SequenceLogps(self.sum[index], self.length[index], rows)


@dataclass(frozen=True, kw_only=True)
class PairLogps:
    """What a loss may know of P pairs: both sides under both models, scores and weights.

    Attributes:
        policy_chosen, policy_rejected: Policy log-probabilities, [P].
        reference_chosen, reference_rejected: The same under the reference, or None.
        score_chosen, score_rejected: [P] float64, NaN where there is none.
        weight: [P] float64, 0 for fillers, which batch statistics leave out.
    """

    policy_chosen: SequenceLogps
    policy_rejected: SequenceLogps
    reference_chosen: SequenceLogps | None = None
    reference_rejected: SequenceLogps | None = None
    score_chosen: Tensor
    score_rejected: Tensor
    weight: Tensor

    def __post_init__(self) -> None:
        sides = (
            self.policy_chosen,
            self.policy_rejected,
            self.reference_chosen,
            self.reference_rejected,
        )
        devices = {side.sum.device for side in sides if side is not None}
        if len(devices) > 1:
            raise ValueError(f"the log-probabilities of a pair lie on {sorted(map(str, devices))}")


@dataclass(frozen=True, kw_only=True)
class LossOutput:
    """What a loss returns for its units (P pairs, or U responses).

    Attributes:
        per_unit: The loss of each unit, unweighted by the pair's own weight.
        chosen_rewards, rejected_rewards: Implicit rewards [P], detached; None for response losses.
        terms: Declared side results of the loss, each of the shape of `per_unit`, detached.
    """

    per_unit: Tensor
    chosen_rewards: Tensor | None = None
    rejected_rewards: Tensor | None = None
    terms: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def per_pair(self) -> Tensor:
        """`per_unit` under the name that pair losses use."""
        return self.per_unit


def _short(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")

"""The prompts of a data set in the making."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..data.source_report import Loaded
from ..records import NO_RESPONSE, PreferenceRow, Response
from .funnel import Funnel

__all__ = ["MadePrompt", "Prompts"]


@dataclass(frozen=True)
class MadePrompt:
    """A prompt for which data are made.

    Attributes:
        row: The row of the source, with its responses and pairs; those of a row that is only a
            prompt are `NO_RESPONSE`.
        gold: The right answer; `None` if there is none.
        digest: Hash of messages and media.
    """

    row: PreferenceRow
    gold: str | None
    digest: str

    @property
    def id(self) -> str:
        """The id of the prompt."""
        return self.row.id

    @property
    def source_responses(self) -> tuple[Response, ...]:
        """The responses of the source; none of a row that is only a prompt."""
        responses = self.row.responses
        return () if [item.text for item in responses] == [NO_RESPONSE] else responses

    @property
    def question(self) -> PreferenceRow:
        """The prompt alone, without the responses of the source."""
        responses = (Response(NO_RESPONSE),)
        return dataclasses.replace(
            self.row, responses=responses, pairs=(), labels=(), other_images=()
        )


@dataclass
class Prompts:
    """All prompts.

    Attributes:
        items: The prompts, in the order of the sources.
        funnel: How many were read and removed.
        loaded: What reading the sources reported.
        leaks: What the leak guard removed or reported, as records of a file.
        notes: What the leak guard did, as sentences.
    """

    items: Sequence[MadePrompt]
    funnel: Funnel
    loaded: Loaded
    leaks: list[Mapping[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the prompts, their order, their answers and the responses of the sources."""
        digest = hashlib.sha256()
        for item in self.items:
            responses = [(response.text, response.score) for response in item.row.responses]
            pairs = [(pair.chosen, pair.rejected, pair.weight) for pair in item.row.pairs]
            digest.update(
                repr((item.id, item.digest, item.gold, responses, pairs)).encode(
                    "utf-8", "surrogatepass"
                )
            )
        return digest.hexdigest()[:32]

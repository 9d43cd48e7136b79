"""Protocols: what a number means beside its benchmark, one YAML file each, with a version."""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from ..discovery import load_shipped, shipped_names
from ..scorers.reasoning import ReasoningRule

__all__ = ["Decoding", "Pixels", "Protocol", "load_protocol", "protocol_names"]


STRICT = ConfigDict(extra="forbid")
ANY = "*"
"""Stands for every family or benchmark that has no entry of its own."""


@validated(frozen=True, config=STRICT)
class Decoding:
    """How a response is generated: greedily, the likeliest token each time.

    Attributes:
        max_new_tokens: Most tokens of a response.
        repetition_penalty: As transformers takes it; 1 for none.
        stop: Texts that end it beside the model's own end.
    """

    max_new_tokens: int = 2048
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@validated(frozen=True, config=STRICT)
class Pixels:
    """Limits that a picture is scaled into; None for the processor's own.

    Attributes:
        min_pixels: Smaller pictures are made larger.
        max_pixels: Larger ones are made smaller.
    """

    min_pixels: int | None = None
    max_pixels: int | None = None


@validated(frozen=True, config=STRICT)
class Protocol:
    """How questions become responses, and responses a number. Scoring reads the rules alone.

    Attributes:
        id: Name of its file.
        title: As people call it.
        version: Raised whenever a rule changes; stands beside every number.
        scoring: The family of rules: extraction, metric and denominators.
        options: What the rules of the family are told, for example ``mcq``.
        reasoning: Which part of a response with reasoning is scored, see `extract/reasoning.py`.
        prompt: Model family -> its prompt profile; ``*`` for every other.
        decoding: Benchmark -> how responses are generated; ``*`` for every other.
        pixels: Model family -> benchmark -> limits of pictures; ``*`` likewise.
    """

    id: str
    title: str
    version: int
    scoring: str
    options: Mapping[str, Any] = field(default_factory=dict)
    reasoning: ReasoningRule = "none"
    prompt: Mapping[str, str] = field(default_factory=lambda: {ANY: "vlmevalkit-default"})
    decoding: Mapping[str, Decoding] = field(default_factory=dict)
    pixels: Mapping[str, Mapping[str, Pixels]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Id and version, as they are printed."""
        return f"{self.id}@{self.version}"

    def prompt_of(self, family: str) -> str:
        """Returns the name of a model family's prompt profile."""
        return self.prompt.get(family) or self.prompt[ANY]

    def decoding_of(self, benchmark: str) -> Decoding:
        """Returns how responses to a benchmark are generated."""
        return self.decoding.get(benchmark) or self.decoding.get(ANY) or Decoding()

    def pixels_of(self, family: str, benchmark: str) -> Pixels:
        """Returns the limits of pictures for a family and a benchmark."""
        own = self.pixels.get(family, {})
        return own.get(benchmark) or own.get(ANY) or Pixels()


def protocol_names() -> tuple[str, ...]:
    """Returns the names of all protocols."""
    return shipped_names(__name__)


@cache
def load_protocol(name: str) -> Protocol:
    """Returns the protocol of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    return load_shipped(__name__, name, Protocol, "--protocol")

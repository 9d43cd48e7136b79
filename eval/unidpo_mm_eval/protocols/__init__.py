"""Protocols: how a benchmark is prompted and scored, in one versioned YAML file each.

A file states the scorer and its options, how reasoning is handled, how responses are generated, and
which prompt profile each model family gets. Profiles are defined under ``prompts`` in the file of
the protocol that they come from; any protocol may use them. ``extends`` names a protocol whose
settings are inherited, except title and version.
"""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from unidpo_mm.inference.decoding import Decoding

from ..discovery import check_name, read_yaml, yaml_names
from ..scorers.reasoning import ReasoningRule
from .prompts import PromptProfile, PromptTemplate, render_question

__all__ = [
    "ANY",
    "Pixels",
    "PromptProfile",
    "PromptTemplate",
    "Protocol",
    "judge_prompt",
    "load_prompts",
    "load_protocol",
    "prompt_names",
    "protocol_names",
    "render_question",
]

STRICT = ConfigDict(extra="forbid")
ANY = "*"
"""Stands for every family or benchmark without an entry of its own."""


@validated(frozen=True, config=STRICT)
class Pixels:
    """Limits of the image size; `None` keeps the processor's limit."""

    min_pixels: int | None = None  # Smaller images are enlarged
    max_pixels: int | None = None  # Larger images are reduced


@validated(frozen=True, config=STRICT)
class Protocol:
    """The rules for prompting, generating and scoring on all benchmarks."""

    id: str  # Name of its file
    title: str  # Name in tables
    version: int  # Increased whenever a rule changes; part of every reported number
    scoring: str  # Name of the scorer: extraction, metric and denominators
    # Options of the scorer, such as ``mcq``
    options: Mapping[str, Any] = field(default_factory=dict)
    # Which part of a response with reasoning is scored, see `scorers/reasoning.py`
    reasoning: ReasoningRule = "none"
    # Model family -> its prompt profile; ``*`` for every other
    prompt: Mapping[str, str] = field(default_factory=lambda: {ANY: "vlmevalkit-default"})
    # Benchmark -> how responses are generated; ``*`` for every other
    decoding: Mapping[str, Decoding] = field(default_factory=dict)
    # Model family -> benchmark -> image size limits; ``*`` for every other
    pixels: Mapping[str, Mapping[str, Pixels]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Id and version, as printed."""
        return f"{self.id}@{self.version}"

    def prompt_of(self, family: str) -> str:
        """Return the name of a model family's prompt profile."""
        return self.prompt.get(family) or self.prompt[ANY]

    def decoding_of(self, benchmark: str) -> Decoding:
        """Return how responses to a benchmark are generated."""
        return self.decoding.get(benchmark) or self.decoding.get(ANY) or Decoding()

    def pixels_of(self, family: str, benchmark: str) -> Pixels:
        """Return the image size limits for a family and a benchmark."""
        limits = self.pixels.get(family, {})
        return limits.get(benchmark) or limits.get(ANY) or Pixels()


def protocol_names() -> tuple[str, ...]:
    """Return the names of all protocols."""
    return yaml_names(__name__)


@cache
def load_protocol(name: str) -> Protocol:
    """Load a protocol."""
    content = read_yaml(__name__, name, "--protocol")
    for templates in ("prompts", "judge_prompts"):
        content.pop(templates, None)
    if base := content.pop("extends", None):
        inherited = TypeAdapter(Protocol).dump_python(load_protocol(base))
        content = inherited | content
    return TypeAdapter(Protocol).validate_python(content)


@cache
def judge_prompt(name: str) -> str:
    """Return the template of a judge's prompt: that of a benchmark, or ``comparison``."""
    template: str = read_yaml(__name__, "judge", "--protocol")["judge_prompts"][name]
    return template


def prompt_names() -> tuple[str, ...]:
    """Return the names of all prompt profiles."""
    return tuple(sorted(_profiles()))


def load_prompts(name: str) -> PromptProfile:
    """Load a prompt profile."""
    check_name(name, prompt_names(), "--prompt")
    return _profiles()[name]


@cache
def _profiles() -> dict[str, PromptProfile]:
    profiles = {}
    for protocol in protocol_names():
        for name, content in read_yaml(__name__, protocol, "--protocol").get("prompts", {}).items():
            profile = {"id": name, **content}
            profiles[name] = TypeAdapter(PromptProfile).validate_python(profile)
    return profiles

"""Protocols: what a number means beside its benchmark, one YAML file each, with a version."""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from ..shipped import load_shipped, shipped_names

__all__ = ["Protocol", "load_protocol", "protocol_names"]


@validated(frozen=True, config=ConfigDict(extra="forbid"))
class Protocol:
    """How responses become a number.

    Attributes:
        id: Name of its file.
        title: As people call it.
        version: Raised whenever a rule changes; stands beside every number.
        scoring: The family of rules: extraction, metric and denominators.
        options: What the rules of the family are told, for example ``mcq``.
    """

    id: str
    title: str
    version: int
    scoring: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Id and version, as they are printed."""
        return f"{self.id}@{self.version}"


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

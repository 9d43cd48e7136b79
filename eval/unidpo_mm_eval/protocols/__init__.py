"""Protocols: what a number means beside its benchmark, one YAML file each, with a version."""

from collections.abc import Mapping
from dataclasses import field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import suggestion

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
    found = (path.name for path in files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml")))


@cache
def load_protocol(name: str) -> Protocol:
    """Returns the protocol of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    known = protocol_names()
    if name not in known:
        found = f"there is no protocol '{name}'{suggestion(name, known)}"
        raise RecipeError(Problem("--protocol", found, f"Choose one of {', '.join(known)}"))
    content = yaml.safe_load((files(__package__) / f"{name}.yaml").read_text("utf-8"))
    return TypeAdapter(Protocol).validate_python({"id": name, **content})

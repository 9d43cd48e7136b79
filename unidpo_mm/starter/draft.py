"""A recipe in the making: values, the reasons for them, and notes."""

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Starter"]


@dataclass(kw_only=True)
class Starter:
    """A recipe in the making.

    Attributes:
        recipe: Its sections.
        comments: Key path -> the reason for its value.
        notes: What was found and what the user has to decide.
    """

    recipe: dict[str, dict[str, Any]] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def set(self, key: str, value: Any, comment: str = "") -> None:
        """Set a key such as ``data.max_length``, with the reason for its value."""
        section, _, name = key.partition(".")
        self.recipe.setdefault(section, {})[name] = value
        if comment:
            self.comments[key] = comment

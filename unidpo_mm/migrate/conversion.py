"""The conversion of one file: the recipe under construction, and what became of every key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config.problems import describe
from ..config.yaml_loader import Document
from ..errors import Problem
from .table import UNSET, Key

__all__ = ["Conversion", "Converter", "Framework", "Note"]

EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on one key of the migrated file.

    Attributes:
        key: The key.
        where: File, line and key.
        text: What differs, or why the key is not migrated and what to do; without a full stop.
    """

    key: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}{'' if self.text.endswith('?') else '.'}"


@dataclass(slots=True)
class Conversion:
    """A recipe under construction.

    Attributes:
        document: The file to migrate.
        framework: Name of its framework.
        keys: The framework's table, with the Trainer's arguments.
        directory: Directory of the file.
        values: Key -> value, as the file states them.
        defaults: Key -> default, where it is not that of the table.
        recipe: The sections of the recipe.
        comments: Key path in the recipe -> comment on its line.
        sources: Key path in the recipe -> the stated keys that it comes from; empty for a default.
        used_keys: Stated keys that the recipe represents.
        notes: Remarks on keys.
        problems: Reasons why there is no recipe.
    """

    document: Document
    framework: str
    keys: Mapping[str, Key]
    directory: Path
    values: dict[str, Any] = field(default_factory=dict)
    defaults: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    used_keys: set[str] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """Return the stated value of a key, its default if it is not stated or null, or None."""
        value = self.values.get(key)
        if value is not None:
            return value
        default = self.defaults.get(key, self.keys[key].default)
        return None if default is UNSET else default

    def keys_of(self, group: str) -> list[str]:
        """Return the keys of a group that the file states."""
        return [key for key in self.values if key in self.keys and self.keys[key].group == group]

    def number(self, key: str) -> int | float:
        """Return `value(key)` if it is a number; otherwise add a problem and return 0."""
        value = self.value(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self.problem(key, f"expected a number, not {describe(value)}", "Write a number")
        return 0

    def flag(self, key: str) -> bool:
        """Return whether a key is true; add a note if it is stated and is not."""
        value = self.values.get(key)
        if key in self.values and value is not True:
            self.skip(key, "expected true or false, so it is not migrated")
        return value is True

    def get(self, target: str) -> Any:
        """Return the value of a key path in the recipe, or None."""
        value: Any = self.recipe
        for part in target.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    def set(self, target: str, value: Any, *keys: str, comment: str = "") -> None:
        """Set a value in the recipe.

        Args:
            target: Key path in the recipe.
            value: The value.
            *keys: The keys that it is made from. If the file states none of them, a comment marks
                the value as the framework's default.
            comment: Comment to use instead.
        """
        sources = tuple(key for key in keys if key in self.values)
        *sections, name = target.split(".")
        section = self.recipe
        for part in sections:
            section = section.setdefault(part, {})
        section[name] = value
        self.used_keys.update(sources)
        self.sources[target] = sources
        self.comments[target] = comment or ("" if sources else f"{self.framework}'s default")

    def note(self, key: str, text: str = "") -> None:
        """Add a note on a key; without `text`, use the note of the framework's table."""
        self.notes.append(Note(key, self.document.where((key,)), text or self.keys[key].note))

    def skip(self, key: str, reason: str = "") -> None:
        """Add a note on a key without a counterpart: that it is disabled, or else the reason."""
        disabled = self.values.get(key) in (None, False, 0, *EMPTY)
        self.note(key, "disabled, so there is nothing to migrate" if disabled else reason)

    def set_eval_fraction(self, key: str) -> None:
        """Set the share of rows to hold out; a number of rows is not migrated."""
        share = self.values.get(key)
        if isinstance(share, int | float) and share >= 1:
            text = f"{share} is a number of rows; set data.eval_fraction to its share of all rows"
            self.note(key, text)
        elif share:
            self.set("data.eval_fraction", share, key)
            self.note(key)
        elif key in self.values:
            self.skip(key)

    def problem(self, key: str, text: str, remedy: str) -> None:
        """Add a problem with a key, because of which there is no recipe."""
        self.problems.append(Problem(self.document.where((key,)), text, remedy))

    def locate(self, target: str) -> str:
        """Return the place in the file that a key of the recipe, or its section, was made from."""
        path = target
        while path:
            if keys := self.sources.get(path):
                return self.document.where((keys[0],))
            path = path.rpartition(".")[0]
        return f"{self.document.name}, for the recipe's key '{target}'"

    def note_remaining(self) -> None:
        """Add a note on every stated key that was replaced by a default, or not used at all."""
        with_note = {note.key for note in self.notes}
        for key, value in self.values.items():
            if key in with_note:
                continue
            targets = [target for target, keys in self.sources.items() if key in keys]
            if key not in self.used_keys:
                self.note(key, "not migrated")
            elif (
                value in EMPTY
                and key in self.keys
                and self.keys[key].group
                and not any(self.get(target) in EMPTY for target in targets)
            ):
                self.note(key, f"empty, so the recipe states {self.framework}'s default")


Converter = Callable[[Conversion], None]


@dataclass(frozen=True, kw_only=True)
class Framework:
    """A framework whose configurations can be migrated.

    Attributes:
        title: Its name.
        hint: Keys that identify its files, for messages.
        keys: Key -> its counterpart in a recipe.
        converters: Group of keys -> function that converts them, in the order of execution.
    """

    title: str
    hint: str
    keys: Mapping[str, Key]
    converters: Mapping[str, Converter]

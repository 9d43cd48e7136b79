"""The recipe while it is being made, with an account of what became of every key."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import Problem
from ..recipe.problems import describe
from ..recipe.yaml_loader import Document
from .keys import UNSET, Key

__all__ = ["Draft", "Note", "Origin"]

EMPTY: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Note:
    """What a reader of the new recipe should know of one key of the old file.

    Attributes:
        key: The key there.
        where: File, line and key.
        text: What differs, or why it is left out and what to do; no full stop at its end.
    """

    key: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}{'' if self.text.endswith('?') else '.'}"


@dataclass(slots=True)
class Draft:
    """A recipe in the making.

    Attributes:
        document: The file that is migrated.
        owner: Whose file it is, in the genitive, for comments.
        keys: The table of its origin, the arguments of the Trainer included.
        folder: The folder of the file.
        values: What the file states, key -> value.
        recipe: The sections as they are written.
        comments: Key path here -> comment on its line.
        sources: Key path here -> the keys there that it is made from; none for a default.
        carried: Keys there that the recipe speaks for.
        notes, problems: What came up.
    """

    document: Document
    owner: str
    keys: Mapping[str, Key]
    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    sources: dict[str, tuple[str, ...]] = field(default_factory=dict)
    carried: set[str] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def value(self, key: str) -> Any:
        """Return what the file states, else the default of the table, else None."""
        stated = self.values.get(key)
        default = self.keys[key].default
        return stated if stated is not None else None if default is UNSET else default

    def number(self, key: str) -> int | float:
        """Return what `value` does where it is a number; anything else is a problem, and 0."""
        value = self.value(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self.problem(key, f"found {describe(value)}", "Write a number")
        return 0

    def get(self, ours: str) -> Any:
        """Return what the recipe states under a key path, or None."""
        found: Any = self.recipe
        for part in ours.split("."):
            found = found.get(part) if isinstance(found, dict) else None
        return found

    def put(self, ours: str, value: Any, *theirs: str, comment: str = "") -> None:
        """States a value in the recipe.

        Args:
            ours: The key path here.
            value: The value.
            *theirs: The keys there that it is made from; without one that the file states it is
                marked as a default.
            comment: Says in place of that mark where the value comes from.
        """
        stated = [key for key in theirs if key in self.values]
        *sections, name = ours.split(".")
        target = self.recipe
        for section in sections:
            target = target.setdefault(section, {})
        target[name] = value
        self.carried.update(stated)
        self.sources[ours] = tuple(stated)
        default = "" if stated else f"{self.owner} default"
        self.comments[ours] = comment or default

    def note(self, key: str, text: str) -> None:
        """Add a note on a key there."""
        self.notes.append(Note(key, self.document.where((key,)), text))

    def leave_out(self, key: str, text: str) -> None:
        """Note that a key has no counterpart; a short note where it is switched off anyway."""
        off = self.values.get(key) in (None, False, 0, "", [], {})
        self.note(key, "it is off, and there is nothing of it here" if off else text)

    def hold_out(self, key: str) -> None:
        """States the share of the rows that is held out; a number of rows becomes a note."""
        share = self.values.get(key)
        if isinstance(share, int | float) and share >= 1:
            text = f"{share} is a number of rows: write {share} / all rows as data.eval_fraction"
            self.note(key, text)
        elif share:
            self.put("data.eval_fraction", share, key)
            self.note(key, self.keys[key].text)
        elif key in self.values:
            self.leave_out(key, "")

    def problem(self, key: str, found: str, remedy: str) -> None:
        """Add a problem with a key there, for which there is no recipe."""
        self.problems.append(Problem(self.document.where((key,)), found, remedy))

    def where(self, path: Sequence[str]) -> str:
        """Return the place in the file that a key path of the recipe was made from."""
        for length in range(len(path), 0, -1):
            keys = self.sources.get(".".join(path[:length]))
            if keys:
                return self.document.where((keys[0],))
        return f"{self.document.name}, for the recipe's key '{'.'.join(path)}'"

    def note_empty(self) -> None:
        """Note the keys that are empty and left it to a default what the recipe says."""
        noted = {note.key for note in self.notes}
        for key, value in self.values.items():
            entry = self.keys.get(key)
            if entry is None or not entry.joint or key in noted or value not in EMPTY:
                continue
            if not any(
                self.get(ours) in EMPTY for ours, keys in self.sources.items() if key in keys
            ):
                self.note(key, f"it is empty, so {self.owner} default stands")

    def accounted(self) -> set[str]:
        """Return the keys there that are in the recipe or in a note."""
        return self.carried | {note.key for note in self.notes}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A framework whose files can be migrated.

    Attributes:
        title: Its name.
        owner: Its name in the genitive.
        sign: By what its files are known, for messages.
        keys: Key there -> what becomes of it.
        complete: Carries over what depends on several keys, after the others are.
    """

    title: str
    owner: str
    sign: str
    keys: Mapping[str, Key]
    complete: Callable[[Draft], None]

"""Strict YAML: what PyYAML reads silently and wrongly is read rightly here, or refused.

PyYAML lets the last of two equal keys win, reads `1e-6` as text and `no` as false. Here scalars
follow the core schema of YAML 1.2 (true and false are the only booleans, every number is a
number), equal keys and a plain `None` are problems, and each key remembers its line.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import Problem

__all__ = ["CORE_TYPES", "NONE_WORD", "Document", "KeyPath", "key_name", "parse_yaml"]

MAX_CHARACTERS = 1_000_000
"""Longest document; recipes have a few thousand characters."""
MAX_VALUES = 100_000
"""Most values of a document after its aliases are expanded; nine lines can mean a billion."""
MAX_DEPTH = 100
"""Deepest nesting; recipes go down five levels."""
MAX_DIGITS = 100
"""Longest number; Python refuses to print integers of more than 4,300 digits."""
SHOWN_VALUE = 80
"""Characters of a value that a message shows."""

KeyPath = tuple[str | int, ...]
"""Where a value stands, for example ("data", "sources", 0, "path")."""

NONE_WORD = "None"
"""What Python people write when they mean `null`: a problem as plain text, text in quotes.

`none` is no such word: `reference: none` and `report_to: none` mean something else than null.
"""

_TAG = "tag:yaml.org,2002:"

CORE_TYPES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    (_TAG + "bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    (_TAG + "null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN"),
    (_TAG + "int", re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$"), "-+0123456789"),
    (
        _TAG + "float",
        re.compile(
            r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
)
"""(tag, pattern, first characters) of every plain scalar that is not text, in order."""


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's parser with the scalars of YAML 1.2; used to compose nodes only."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's class-level table


for _tag, _pattern, _first in CORE_TYPES:
    _CoreLoader.add_implicit_resolver(_tag, _pattern, [*_first, ""])


@dataclass(slots=True)
class Document:
    """A parsed document: its values, the line of each key path, and what is wrong with it."""

    name: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """Return file, line and key of a path, or the override that set it.

        A path without a line of its own has that of the section it belongs to.
        """
        key = f", key '{key_name(path)}'" if path else ""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return f"override '{self.overrides[path[:length]]}'{key}"
            if path[:length] in self.lines:
                return f"{self.name} line {self.lines[path[:length]]}{key}"
        return f"{self.name}{key}"


def key_name(path: KeyPath) -> str:
    """Return a key path as people write it: ``data.sources.0.path``."""
    return ".".join(str(part) for part in path)


def parse_yaml(text: str, name: str) -> Document:
    """Parse one YAML document, collecting problems instead of stopping at the first.

    Args:
        text: The document.
        name: What to call it in messages, usually the file's name.
    """
    document = Document(name)
    if len(text) > MAX_CHARACTERS:
        problem = f"the document has {len(text):,} characters and the limit is {MAX_CHARACTERS:,}"
        document.problems.append(Problem(name, problem, "Write a shorter one"))
        return document
    try:
        root = yaml.compose(text, Loader=_CoreLoader)
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(error, name))
        return document
    except RecursionError:
        document.problems.append(_too_deep(name))
        return document
    if root is not None:
        try:
            document.data = _Builder(document).value(root, (), frozenset())
        except RecursionError:  # aliases nest deeper than the text does
            document.problems.append(_too_deep(name))
        except _TooManyValuesError:
            problem = f"it has more than {MAX_VALUES:,} values once its aliases are expanded"
            document.problems.append(Problem(name, problem, "Use fewer aliases inside aliases"))
    return document


class _TooManyValuesError(Exception):
    """A document is too large once its aliases are expanded."""


def _too_deep(name: str) -> Problem:
    return Problem(name, "this is nested too deeply to be a recipe", "Close the brackets")


def _syntax_problem(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = name if mark is None else f"{name} line {mark.line + 1}, column {mark.column + 1}"
    found = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(
        where, f"this is not YAML: {found}", "Check brackets, quotes and the indentation there"
    )


class _Builder:
    """Turns nodes into values; notes lines and problems in the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0

    def value(self, node: yaml.Node, path: KeyPath, above: frozenset[int]) -> Any:
        """Return the value of a node; `above` holds the nodes it stands in."""
        self.values += 1
        if self.values > MAX_VALUES:
            raise _TooManyValuesError
        if len(path) > MAX_DEPTH:
            raise RecursionError
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in above:
            return self._problem(path, "an alias refers to what it stands in", "Write it out")
        above = above | {id(node)}
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, above)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, n), above) for n, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        return self._problem(path, f"the tag '{node.tag}' means nothing here", "Remove it")

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, above: frozenset[int]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                written = getattr(key_node, "value", "")
                shown = f" '{_shortened(written)}'" if isinstance(written, str) else ""
                self._problem_at(line, path, f"the key{shown} is not text", "Put it in quotes")
                continue
            key = key_node.value
            here = (*path, key)
            if key in result:
                first = self.document.lines[here]
                problem = f"the key stands here a second time, first on line {first}"
                self._problem_at(line, here, problem, "Keep one of the two")
                continue
            self.document.lines[here] = line
            result[key] = self.value(value_node, here, above)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.style is None and node.tag == _TAG + "str" and node.value == NONE_WORD:
            problem = f"found the text '{node.value}'"
            return self._problem(
                path, problem, f"Write null for no value, or '{node.value}' in quotes for the text"
            )
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            kind = node.tag.removeprefix(_TAG)
            problem = f"'{_shortened(node.value)}' is not a value of !!{kind}"
            return self._problem(path, problem, "Correct it")

    def _problem(self, path: KeyPath, found: str, remedy: str) -> None:
        self.document.problems.append(Problem(self.document.where(path), found, remedy))

    def _problem_at(self, line: int, path: KeyPath, found: str, remedy: str) -> None:
        where = f"{self.document.name} line {line}"
        key = f", key '{key_name(path)}'" if path else ""
        self.document.problems.append(Problem(where + key, found, remedy))


def _shortened(text: str) -> str:
    if len(text) <= SHOWN_VALUE:
        return text
    return f"{text[:SHOWN_VALUE]}... ({len(text):,} characters)"


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):  # only a tag, `!!bool yes`, leads here
        raise ValueError(text)
    return text.lower() == "true"


def _null(text: str) -> None:
    return None


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(text)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Any]] = {
    _TAG + "bool": _bool,
    _TAG + "null": _null,
    _TAG + "int": _int,
    _TAG + "float": _float,
    _TAG + "str": str,
}

"""Parse YAML strictly: values that PyYAML silently misreads are read correctly, or are errors.

PyYAML keeps the last of two equal keys, and reads `1e-6` as text and `no` as false. Here scalars
follow the core schema of YAML 1.2 (true and false are the only booleans, all numbers are numbers),
duplicate keys and a plain `None` are problems, and the line of each key is recorded.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import Problem, RecipeError

__all__ = ["Document", "KeyPath", "key_name", "parse_yaml", "read_text"]

MAX_CHARACTERS = 1_000_000
"""Maximum length of a document; recipes have a few thousand characters."""
MAX_VALUES = 100_000
"""Maximum number of values after aliases are expanded; nine lines can expand to a billion."""
MAX_DEPTH = 100
"""Maximum nesting; recipes have five levels."""
MAX_DIGITS = 100
"""Maximum length of a number; Python refuses to print integers of more than 4,300 digits."""
MAX_QUOTED = 80
"""Maximum number of characters of a value that a message quotes."""

KeyPath = tuple[str | int, ...]
"""The keys and indices that lead to a value, for example ("data", "sources", 0, "path")."""

NONE_WORD = "None"
"""Python's word for `null`: an error unless it is in quotes.

`none` is allowed: `reference: none` and `report_to: none` do not mean null.
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
"""(tag, pattern, first characters) of each plain scalar that is not text, in order."""


class _CoreLoader(yaml.SafeLoader):
    """A PyYAML parser with the scalars of YAML 1.2, only used to compose nodes."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's class-level table


for _tag, _pattern, _first in CORE_TYPES:
    _CoreLoader.add_implicit_resolver(_tag, _pattern, [*_first, ""])


@dataclass(slots=True)
class Document:
    """A parsed document.

    Attributes:
        name: The name of the document in messages, usually its file name.
        data: Its values.
        lines: Key path -> line, from 1.
        overrides: Key path -> the override that set it.
        problems: Everything that is wrong with it.
    """

    name: str
    data: Any = None
    lines: dict[KeyPath, int] = field(default_factory=dict)
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """Return file, line and key of a path, or the override that set it.

        If the line of a path is unknown, it is that of the section above.
        """
        key = f", key '{key_name(path)}'" if path else ""
        for length in range(len(path), 0, -1):
            if path[:length] in self.overrides:
                return f"override '{self.overrides[path[:length]]}'{key}"
            if path[:length] in self.lines:
                return f"{self.name} line {self.lines[path[:length]]}{key}"
        return f"{self.name}{key}"


def key_name(path: KeyPath) -> str:
    """Return a key path in the form ``data.sources.0.path``."""
    return ".".join(str(part) for part in path)


def read_text(path: Path, remedy: str) -> str:
    """Return the content of a file.

    Raises:
        RecipeError: If it cannot be read, with the remedy.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not valid UTF-8"
        raise RecipeError(Problem(str(path), f"cannot be read: {reason}", remedy)) from error


def parse_yaml(text: str, name: str) -> Document:
    """Parse one YAML document and collect all problems in it.

    Args:
        text: The document.
        name: Its name in messages, usually the file name.
    """
    document = Document(name)
    try:
        if len(text) > MAX_CHARACTERS:
            problem = f"the document has {len(text):,} characters and the limit is "
            raise _TooLargeError(f"{problem}{MAX_CHARACTERS:,}", "Shorten it")
        root = yaml.compose(text, Loader=_CoreLoader)
        if root is not None:
            document.data = _Builder(document).value(root, (), frozenset())
    except yaml.YAMLError as error:
        document.problems.append(_syntax_problem(error, name))
    except RecursionError:  # aliases can be nested more deeply than the text
        text = "the document is nested too deeply"
        document.problems.append(Problem(name, text, "Close the brackets"))
    except _TooLargeError as error:
        document.problems.append(Problem(name, *error.args))
    return document


class _TooLargeError(Exception):
    """A document is too large, with the problem and the remedy as arguments."""


def _syntax_problem(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = name if mark is None else f"{name} line {mark.line + 1}, column {mark.column + 1}"
    reason = getattr(error, "problem", None) or str(error).splitlines()[0]
    remedy = "Check brackets, quotes and indentation there"
    return Problem(where, f"not valid YAML: {reason}", remedy)


class _Builder:
    """A converter of nodes to values that records lines and problems in the document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.values = 0

    def value(self, node: yaml.Node, path: KeyPath, ancestors: frozenset[int]) -> Any:
        """Return the value of a node; `ancestors` has the ids of the nodes that contain it."""
        self.values += 1
        if self.values > MAX_VALUES:
            problem = f"it has more than {MAX_VALUES:,} values once its aliases are expanded"
            raise _TooLargeError(problem, "Use fewer aliases inside aliases")
        if len(path) > MAX_DEPTH:
            raise RecursionError
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if id(node) in ancestors:
            return self._problem(path, "an alias contains itself", "Replace it with its value")
        ancestors = ancestors | {id(node)}
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path, ancestors)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.value(item, (*path, n), ancestors) for n, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            return self._scalar(node, path)
        return self._problem(path, f"the tag '{node.tag}' is not supported", "Remove it")

    def _mapping(
        self, node: yaml.MappingNode, path: KeyPath, ancestors: frozenset[int]
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag != _TAG + "str":
                written = getattr(key_node, "value", "")
                key = f" '{_shortened(written)}'" if isinstance(written, str) else ""
                self._problem(path, f"the key{key} is not text", "Put it in quotes", line)
                continue
            key = key_node.value
            here = (*path, key)
            if key in result:
                first = self.document.lines[here]
                problem = f"duplicate key '{_shortened(key)}', first on line {first}"
                self._problem(here, problem, "Remove one of the two", line)
                continue
            self.document.lines[here] = line
            result[key] = self.value(value_node, here, ancestors)
        return result

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.style is None and node.tag == _TAG + "str" and node.value == NONE_WORD:
            remedy = f"Use null for no value, or put '{NONE_WORD}' in quotes if it is text"
            return self._problem(path, f"found the text '{NONE_WORD}'", remedy)
        try:
            return _SCALARS[node.tag](node.value)
        except ValueError:
            kind = node.tag.removeprefix(_TAG)
            problem = f"'{_shortened(node.value)}' is not a value of !!{kind}"
            return self._problem(path, problem, "Fix the value")

    def _problem(self, path: KeyPath, text: str, remedy: str, line: int | None = None) -> None:
        where = self.document.where(path)
        if line is not None:  # not that of the value
            key = f", key '{key_name(path)}'" if path else ""
            where = f"{self.document.name} line {line}{key}"
        self.document.problems.append(Problem(where, text, remedy))


def _shortened(text: str) -> str:
    if len(text) <= MAX_QUOTED:
        return text
    return f"{text[:MAX_QUOTED]}... ({len(text):,} characters)"


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):  # only possible with a tag, `!!bool yes`
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

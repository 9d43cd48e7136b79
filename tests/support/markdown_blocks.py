"""Every fenced block of the documentation, with its language and its marks.

A block is indented or not, between fences of three or more backticks or tildes. A mark is an HTML
comment directly above the block: ``<!-- not run: REASON -->``, ``<!-- source: FILE -->``,
``<!-- message: NAME -->`` or ``<!-- tree -->``.
"""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Block", "blocks_of", "documentation"]

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[^`\n]*)$")
MARK = re.compile(r"^ *<!-- (?P<kind>[a-z ]+?)(?:: (?P<value>.+?))? -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its file, relative to the repository.
        line: Number of the line of its opening fence.
        language: The word after the fence; empty without one.
        text: Its content, without the indentation of the fence.
        mark: The kind of the comment above it, such as ``not run``; empty without one.
        value: The rest of that comment.
    """

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"


def documentation() -> list[Path]:
    """Return the pages whose blocks are checked."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    return [*pages, *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(path: Path) -> list[Block]:
    """Return the fenced blocks of a page.

    Raises:
        ValueError: If a fence is not closed.
    """
    return list(_blocks(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))


def _blocks(page: str, text: str) -> Iterator[Block]:
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        closing = re.compile(rf"^ *{opening['fence'][0]}{{{len(opening['fence'])},}} *$")
        end = next((n for n in range(number + 1, len(lines)) if closing.match(lines[n])), None)
        if end is None:
            raise ValueError(f"{page}:{number + 1}: the block is not closed")
        mark = MARK.match(lines[number - 1]) if number else None
        yield Block(
            page=page,
            line=number + 1,
            language=opening["language"].strip(),
            text=_content(lines[number + 1 : end], len(opening["indent"])),
            mark=mark["kind"] if mark else "",
            value=(mark["value"] or "") if mark else "",
        )
        number = end + 1


def _content(lines: list[str], indent: int) -> str:
    """Return lines without the indentation of their fence."""
    content = "\n".join(lines) + "\n"
    return textwrap.dedent(content) if indent else content

"""Statements of a response: its sentences, without questions and headings."""

import re
from collections.abc import Iterator

__all__ = ["sentences", "statements"]

LIST_MARK = re.compile(r"^\s*(?:[-*+\u2022>#]+|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])\s+")
"""Mark of an item of a list, of a heading or of a quotation."""
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st vs etc e.g i.e cf fig figs eq vol approx ca dept est inc ltd jr sr u.s "
    "u.k a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
"""Words before a period that does not end a sentence, in lower case."""
END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]*_]*(?=\s)|[\u3002\uff01\uff1f]+[\u201d\u2019\u300d]*")
"""The end of a sentence: of Latin scripts before whitespace, so that decimals stay whole."""
NUMBERED = frozenset({"no", "nos", "p", "pp", "ch", "sec"})
"""Words before a period that does not end a sentence if a number follows, in lower case."""
LAST_WORD = re.compile(r"([\w.]+)\.$")
NEXT = re.compile(r"\s*[\"'\u201c\u2018(\[*_]*(?:[^\W\d_a-z]|\d|[a-z]+[A-Z])")
"""Text with which a sentence begins: not a lower-case letter."""
MARKUP = " \t*_`#>\"'"


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text; a line break ends a sentence, too."""
    for line in text.splitlines():
        line = LIST_MARK.sub("", line).strip()
        start = 0
        for match in END.finditer(line):
            if _ends(line, start, match):
                yield line[start : match.end()].strip()
                start = match.end()
        if line[start:].strip():
            yield line[start:].strip()


def statements(text: str) -> list[str]:
    """Return the sentences of a text that state something: no questions, headings or marks."""
    return [
        sentence
        for sentence in sentences(text)
        if any(character.isalnum() for character in sentence)
        and sentence.strip(MARKUP)[-1:] not in ("?", "\uff1f", ":", "\uff1a")
    ]


def _ends(line: str, start: int, match: re.Match[str]) -> bool:
    """Return whether a sentence ends at a match."""
    if match[0][0] in "\u3002\uff01\uff1f":
        return True
    if not NEXT.match(line, match.end()):
        return False  # the next word has a lower-case letter
    word = LAST_WORD.search(line[start : match.end()])
    if word is None or match[0] != ".":
        return True
    before = word[1]
    if before.lower() in NUMBERED:
        return not line[match.end() :].lstrip()[:1].isdigit()
    is_initial = len(before) == 1 and before.isupper()
    return not is_initial and before.lower() not in ABBREVIATIONS

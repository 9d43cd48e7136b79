"""Check identifiers and texts against the project's vocabulary (CONTRIBUTING.md, "Language").

    python tests/support/language.py [PATH ...]

prints each place as ``file:line: problem`` and exits with 1 if there is one. Without paths, every
tracked Python and Markdown file is checked.
"""

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

__all__ = ["identifier_problems", "text_problems"]

ROOT = Path(__file__).parents[2]
THIS = Path(__file__).relative_to(ROOT)

BANNED = frozenset(
    "found asked asking said told seen own known shown given wanted one many whole more".split()
)
"""Participles and quantifiers that stand for a noun: name what the value is."""

BANNED_PARTS = {
    "picture": "image",
    "pictures": "images",
    "nasty": "adversarial",
    "kits": "toolkits",
}
"""Parts of an identifier and the word for them."""

PHRASES = {
    r"goe?s? on from|goes on\b": "resume",
    r"without a word": "silently",
    r"\bleft out\b|\bleave (?:it|one|them) out|\bleaves? out\b": "remove, or skip and count",
    r"\b(?:is|are) no (?:file|folder|directory|JSON|text|number|image|pair)\b": "is not a ...",
    r"\b(?:is|are) not there\b": "does not exist",
    r"\b(?:is|are) there already": "already exists",
    r"\bstands? (?:in the|in its|twice|beside|for itself)": "is in, appears, next to",
    r"\bnobody\b": "an ordinary subject",
    r"\b(?:log-probs?|log-probabilit\w+) a token|\bone file a \w|\bwords a caption": "per",
    r"\bGive (?:a|an|the|it|one) |[,.:;] give (?:a|an|the|it|one) ": "use, choose, set, pass",
    r"(?<![\w.])[Pp]ictures?\b(?!:)": "image",
    r"\b[Nn]one for (?:nowhere|one|none)\b": "`None` if ...",
    r"\b(?:[Mm]ost|[Ll]east) (?:pixels|pairs|tokens|rows|questions|images|bytes)\b": "maximum",
    r"\banew\b": "again",
    r"\bhalf a character": "an unpaired surrogate",
    r"\btold (?:at once|and|once)": "reported",
    r"\bnasty\b": "adversarial",
    r"\b(?:the|of a|two|both) kits?\b": "reference toolkits",
    r"\bAsk, score\b|\bwhat it is (?:measured|made) on\b": "plain English",
    r"\bComing from elsewhere\b": "Migrating from ...",
    r"\bby what\b|\bof which one\b|\bwhat (?:it|they) said\b": "plain English",
    r"\bmove on\b": "continue",
    r"\bfor none\b": "if there is none",
    r"\blikewise\b": "repeat the statement",
    r"\bbeside\b": "next to, in addition to",
    r"\bof the shape of\b": "with the architecture of",
    r"\bof ours\b": "of this project",
    r"\b(?:is|are) told\b": "reported",
    r"\bunsaid\b": "silently",
    r"\bthe usual ones?\b": "the default",
    r"^# (?:Of|Its) ": "a noun phrase, for example 'Name of the benchmark'",
    r"^What (?!happens\b)[^?]*\.\s*\Z": "a noun phrase",
}
"""Patterns of phrases that make a reader stumble, and what to write."""

_PHRASES = {re.compile(pattern): advice for pattern, advice in PHRASES.items()}
_DELIMITERS = re.compile(r"^[A-Za-z]{0,2}(?:\"\"\"|\"|')|(?:\"\"\"|\"|')$")
_QUOTED = re.compile(r"`[^`]*`|\"[^\"\n]*\"|https?://\S+")


def identifier_problems(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and problem of each banned identifier that the source binds."""
    for node in ast.walk(ast.parse(source)):
        for name in _bound_names(node):
            if name in BANNED:
                yield node.lineno, f"'{name}' does not name what the value is"
            for part in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name):
                if better := BANNED_PARTS.get(part.lower()):
                    yield node.lineno, f"'{name}': use '{better}' for '{part.lower()}'"


def _bound_names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            yield name
        case ast.Attribute(attr=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(asname=str(name)):
            yield name
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
            yield name


def text_problems(text: str) -> Iterator[tuple[int, str]]:
    """Yield line and problem of each phrase of the word list in prose."""
    prose = _QUOTED.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
    flat = prose.replace("\n", " ")
    for pattern, advice in _PHRASES.items():
        for match in pattern.finditer(flat):
            yield text.count("\n", 0, match.start()) + 1, f"'{match.group()}': write {advice}"


def python_texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield first line and text of each comment and string literal, without its quotes.

    Strings without a space are skipped: they are keys, names and paths.
    """
    kinds = {
        tokenize.COMMENT,
        tokenize.STRING,
        getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING),
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds and " " in token.string:
            yield token.start[0], _DELIMITERS.sub("", token.string)


def file_problems(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and problem of a Python or Markdown file."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from text_problems(re.sub(r"(?ms)^```.*?^```", _blank, source))
        return
    if path.stem.lstrip("_") in BANNED:
        yield 1, f"a module called '{path.stem}' does not say what it holds"
    yield from identifier_problems(source)
    for first, text in python_texts(source):
        yield from ((first + line - 1, problem) for line, problem in text_problems(text))


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match.group())


def main(names: list[str]) -> int:
    """Check files and return the exit code."""
    if not names:
        command = ["git", "ls-files", "*.py", "*.md"]
        names = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
    problems = [
        f"{name}:{line}: {problem}"
        for name in names
        if Path(name) != THIS
        for line, problem in sorted(file_problems(ROOT / name))
    ]
    for problem in problems:
        print(problem)  # noqa: T201
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Write the tables of docs/making_data.md from the declared keys and scorers.

Run ``python -m unidpo_mm.pipelines.keys_page docs``.
"""

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config.options import documentation
from ..config.page import default_text, updated_page
from ..config.problems import section_at
from ..config.recipe import ModelSection
from ..config.sections import Section, SourceOptions
from ..plugins import SCORERS, load, plugin_names, summary
from .recipe import MakeRecipe
from .rounds import RoundsRecipe

__all__ = ["PAGE", "tables"]

PAGE = "making_data.md"
"""The page with the tables."""
ELSEWHERE = (ModelSection, SourceOptions)
"""Sections that docs/recipe.md describes."""
ATTRIBUTE = re.compile(r"^ {4,8}(\w[\w, ]*): ", re.MULTILINE)


def tables() -> dict[str, list[str]]:
    """Return the tables of the page by title."""
    return {
        "make": keys_table(MakeRecipe),
        "rounds": keys_table(RoundsRecipe),
        "scorers": scorers_table(),
        "parameters": parameters_table(),
    }


def keys_table(section: type[Section]) -> list[str]:
    """Return the lines of the table of all keys of a recipe."""
    return ["| key | default | meaning |", "| --- | --- | --- |", *_lines(section, "")]


def _lines(section: type[Section], prefix: str) -> Iterator[str]:
    texts = documentation(section)
    for name, field in section.model_fields.items():
        inner = section_at((), field.annotation)
        is_section = isinstance(inner, type) and issubclass(inner, Section)
        elsewhere = is_section and any(issubclass(inner, kind) for kind in ELSEWHERE)
        key = f"{prefix}{name}"
        yield f"| `{key}` | {default_text(field)} | {texts.get(name, '')} |"
        if is_section and not elsewhere:
            entry = ".NAME" if name == "score" else ""
            yield from _lines(inner, f"{key}{entry}.")


def scorers_table() -> list[str]:
    """Return the lines of the table of all scorers."""
    lines = [
        "| scorer | meaning | scale | sees images | needs |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, module in plugin_names(SCORERS).items():
        scorer = load(SCORERS, name)
        sees = "yes" if scorer.sees_images else "no"
        needs = ", ".join(NEEDS[need] for need in sorted(scorer.needs))
        lines.append(f"| `{name}` | {summary(module)} | {_scale(scorer)} | {sees} | {needs} |")
    return lines


NEEDS: Mapping[str, str] = {"gold": "right answers", "scores": "other scores"}
"""Need of a scorer -> its description."""


def _scale(scorer: Any) -> str:
    if isinstance(inspect.getattr_static(scorer, "scale"), property):
        return "by its parameters"
    return "no limits" if scorer.scale is None else "{:g} to {:g}".format(*scorer.scale)


def parameters_table() -> list[str]:
    """Return the lines of the table of all parameters of scorers."""
    lines = ["| scorer | parameter | default | meaning |", "| --- | --- | --- | --- |"]
    for name in plugin_names(SCORERS):
        scorer = load(SCORERS, name)
        meanings = _meanings(scorer)
        for field in dataclasses.fields(scorer):
            text = _default(field)
            meaning = meanings[field.name]
            lines.append(f"| `{name}` | `{field.name}` | {text} | {meaning} |")
    return lines


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()}`"
    if field.default is dataclasses.MISSING:
        return "required"
    return "null" if field.default is None else f"`{field.default}`"


def _meanings(scorer: type[Any]) -> dict[str, str]:
    """Return the text on each parameter in the docstrings of a scorer and of its base classes."""
    meanings: dict[str, str] = {}
    for kind in reversed(scorer.__mro__):
        _, _, section = (kind.__doc__ or "").partition("Attributes:\n")
        parts = ATTRIBUTE.split(section)[1:]
        for names, text in zip(parts[::2], parts[1::2], strict=True):
            paragraph = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
            for name in names.split(","):
                meanings[name.strip()] = paragraph.replace("|", "\\|")
    return meanings


if __name__ == "__main__":
    path = Path(sys.argv[1]) / PAGE
    path.write_text(updated_page(path.read_text("utf-8"), tables()), encoding="utf-8")

"""Writes a recipe as people do: what is stated, in blocks, with a comment where a value is from."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import yaml

from ..recipe.yaml_loader import parse_yaml

__all__ = ["write_recipe"]

SECTIONS = ("model", "data", "loss", "train", "run")
COLUMN = 40
"""Where comments stand, if the line is short enough."""


def write_recipe(recipe: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Return a recipe as YAML.

    Args:
        recipe: The sections.
        comments: Key path -> comment on its line; empty for none.
        head: First line of the file, a comment.
    """
    lines = [f"# {head}"]
    for section in SECTIONS:
        if section in recipe:
            lines += [f"{section}:", *_block(recipe[section], section, comments, "  ")]
    return "\n".join(lines) + "\n"


def _block(
    values: Mapping[str, Any], path: str, comments: Mapping[str, str], indent: str
) -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        here = f"{path}.{name}"
        key = f"{indent}{_scalar(name)}:"
        if isinstance(value, Mapping) and value:
            lines += [key, *_block(value, here, comments, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            lines += [key, *(line for item in value for line in _item(item, indent + "  "))]
        else:
            lines.append(_commented(f"{key} {_inline(value)}", comments.get(here, "")))
    return lines


def _item(value: Mapping[str, Any], indent: str) -> list[str]:
    inner = [f"{_scalar(name)}: {_inline(one)}" for name, one in value.items()]
    return [f"{indent}{'- ' if not n else '  '}{line}" for n, line in enumerate(inner)]


def _commented(line: str, comment: str) -> str:
    return f"{line:<{COLUMN}}# {comment}" if comment else line


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(k)}: {_inline(v)}" for k, v in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Return a value that is read again as what it is; text without quotes where that is safe."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return _number(value)
    if not isinstance(value, str):
        return str(value)
    return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)


def _number(value: float) -> str:
    """Return a number as recipes have it: 5.0e-6, which every reader takes for one."""
    if not math.isfinite(value):
        return f"{value:f}".replace("inf", ".inf").replace("nan", ".nan")
    digits, e, exponent = repr(value).partition("e")
    return f"{digits if '.' in digits else digits + '.0'}e{int(exponent):+d}" if e else digits


@cache
def _is_plain(text: str) -> bool:
    """Whether a text needs no quotes, for the strict reader of recipes and for any other one."""
    if not text.isprintable():
        return False
    read = parse_yaml(f"[{text}]", "")
    try:
        also = yaml.safe_load(f"[{text}]")
    except yaml.YAMLError:
        return False
    return not read.problems and read.data == also == [text]

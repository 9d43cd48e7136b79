"""Write a recipe as YAML, with comments on single lines."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from ..config.yaml_loader import parse_yaml

__all__ = ["write_recipe"]

SECTIONS = ("model", "data", "loss", "train", "run")
COLUMN = 40
"""Column of comments, if the line is short enough."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, without aliases, for readers of YAML 1.1 and for the one of recipes."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


@cache
def _is_plain(text: str) -> bool:
    """Return whether the reader of recipes reads a text without quotes as that text."""
    document = parse_yaml(f"[{text}]", "")
    return text.isprintable() and not document.problems and document.data == [text]


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _is_plain(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, items: list[Any]) -> yaml.SequenceNode:
    has_mappings = any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not has_mappings)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)


def write_recipe(recipe: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Return a recipe as YAML.

    Args:
        recipe: The sections.
        comments: Key path -> comment on its line; an empty text for none.
        head: First line of the file, a comment.
    """
    ordered = {section: recipe[section] for section in SECTIONS if section in recipe}
    text = yaml.dump(
        ordered,
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
    )
    lines = text.splitlines()
    for path, number in parse_yaml(text, "").lines.items():
        comment = comments.get(".".join(map(str, path)))
        if comment:
            lines[number - 1] = f"{lines[number - 1]:<{COLUMN - 1}} # {comment}"
    return "\n".join([f"# {head}", *lines]) + "\n"

"""Convert recipes to YAML: every key of a validated recipe, or sections with comments."""

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import yaml

from ..secrets import mask_secrets
from .recipe import Recipe, keys_of
from .sections import Section
from .yaml_loader import parse_yaml

__all__ = ["dump_recipe", "format_recipe"]

COMMENT_COLUMN = 40
"""Column in which comments start, if the line is short enough."""


class _Dumper(yaml.SafeDumper):
    """A YAML dumper without aliases, whose output the recipe reader and YAML 1.1 readers accept."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


@cache
def _is_plain(text: str) -> bool:
    """Return whether the recipe reader reads the text unchanged if it is not quoted."""
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


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every key, so that `load_recipe` reads the same recipe again.

    Access tokens and passwords are masked, so they have to be set again.
    """
    return _dump(mask_secrets(_ordered(recipe)))


def format_recipe(recipe: Mapping[str, Any], comments: Mapping[str, str], head: str) -> str:
    """Return a recipe as YAML with comments.

    Args:
        recipe: The sections.
        comments: Dotted key path -> comment on its line; an empty text adds no comment.
        head: Comment on the first line, without ``#``.
    """
    text = _dump({section: recipe[section] for section in Recipe.model_fields if section in recipe})
    lines = text.splitlines()
    for path, number in parse_yaml(text, "").lines.items():
        comment = comments.get(".".join(map(str, path)))
        if comment:
            lines[number - 1] = f"{lines[number - 1]:<{COMMENT_COLUMN - 1}} # {comment}"
    return "\n".join([f"# {head}", *lines]) + "\n"


def _dump(values: Any) -> str:
    return yaml.dump(
        values,
        Dumper=_Dumper,
        default_flow_style=False,
        sort_keys=False,
        allow_unicode=True,
        width=math.inf,
    )


def _ordered(value: Any) -> Any:
    """Return a section as a dict in which the keys that only recipes have come first."""
    if isinstance(value, Section):
        keys = [*keys_of(type(value)), *(value.model_extra or {})]
        return {key: _ordered(getattr(value, key)) for key in keys}
    return list(map(_ordered, value)) if isinstance(value, tuple) else value

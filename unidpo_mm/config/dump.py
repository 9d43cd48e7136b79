"""Write a recipe as YAML, with secrets masked, so that the same recipe is read again."""

from typing import Any

import yaml

from .recipe import Recipe, keys_of
from .secrets import mask_secrets
from .sections import Section
from .yaml_loader import CORE_TYPES, NONE_WORD

__all__ = ["dump_recipe"]


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes each text that YAML 1.1 or 1.2 could read as another type."""

    # a copy of PyYAML's table, which has the rules of YAML 1.1; those of YAML 1.2 are added below
    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's class-level table
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # unless line separators such as U+0085 are escaped in double quotes, PyYAML does not read what
    # it writes
    style = '"' if text == NONE_WORD or not text.isprintable() else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag, _pattern, _first in CORE_TYPES:
    _Dumper.add_implicit_resolver(_tag, _pattern, [*_first, ""])
_Dumper.add_representer(str, _text)
_Dumper.add_representer(tuple, yaml.SafeDumper.represent_list)


def dump_recipe(recipe: Recipe) -> str:
    """Return a recipe as YAML with every key, so that `load_recipe` reads the same recipe again.

    Access tokens and passwords are masked and have to be set again.
    """
    values = mask_secrets(_ordered(recipe))
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _ordered(value: Any) -> Any:
    """Return a section as a dict, first the keys that only recipes have."""
    if isinstance(value, Section):
        keys = [*keys_of(type(value)), *(value.model_extra or {})]
        return {key: _ordered(getattr(value, key)) for key in keys}
    return list(map(_ordered, value)) if isinstance(value, tuple) else value

"""The table of `unidpo-mm list models`: what each model type supports."""

import json
from collections.abc import Sequence
from typing import Any

from ..adapter import AdapterFamily
from ..model_types import ModelType
from ..modeling.families import VISION
from ..plugins import FAMILIES, load_family, plugin_names

__all__ = ["model_table", "model_types", "models_json"]

HEADINGS = ("MODEL TYPE", "FAMILY", "LAYOUTS", "IMAGES", "VIDEO", "IMAGE SIZE", "MODELS AND NOTES")
ANY = "any"
"""Stands for the types that a family does not list."""


def model_types() -> list[tuple[str, ModelType]]:
    """Return the types of all families with the names of the families, sorted by type.

    A family that lists no types, such as the one of text, has a single entry at the end.
    """
    families: list[AdapterFamily] = [load_family(name) for name in plugin_names(FAMILIES)]
    listed = [(f.name, _described(f, name)) for f in families for name in f.model_types]
    others = [(f.name, _described(f, "")) for f in families if not f.model_types]
    return [*sorted(listed, key=lambda entry: entry[1].name), *others]


def _described(family: AdapterFamily, name: str) -> ModelType:
    if family.describe is not None:
        return family.describe(name)
    return ModelType(name=name, images="several" if VISION in family.parts else "none")


def model_table(types: Sequence[tuple[str, ModelType]]) -> list[str]:
    """Return the lines of a table of model types."""
    rows = [HEADINGS, *(_cells(family, kind) for family, kind in types)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _cells(family: str, kind: ModelType) -> tuple[str, ...]:
    size = kind.image_unit or ("fixed" if kind.images != "none" and kind.title else "-")
    notes = "; ".join(filter(None, (kind.title, *kind.caveats)))
    video = "yes" if kind.videos else "no"
    return (kind.name or ANY, family, ", ".join(kind.layouts), kind.images, video, size, notes)


def models_json(types: Sequence[tuple[str, ModelType]]) -> str:
    """Return model types as JSON."""
    entries: list[dict[str, Any]] = [
        {
            "model_type": kind.name or None,
            "family": family,
            "models": kind.title,
            "layouts": kind.layouts,
            "images": kind.images,
            "videos": kind.videos,
            "image_unit": kind.image_unit,
            "caveats": list(kind.caveats),
        }
        for family, kind in types
    ]
    return json.dumps(entries, indent=2)

"""Model families, one module each, found by file name.

A module exports `ADAPTER`, an `unidpo_mm.adapter.AdapterFamily`. Modules whose names start with an
underscore contain shared functions. docs/families.md describes how to add a family.

Families of other packages import `ImageAdapter` and `ImageTraits` from here.
"""

from typing import Any

__all__ = ["PLUGIN_API", "ImageAdapter", "ImageTraits"]

PLUGIN_API = 1
"""Version of the plugin contract that these adapters were written for."""


def __getattr__(name: str) -> Any:
    """Import the adapter of families with images when it is used: it imports torch."""
    if name in ("ImageAdapter", "ImageTraits"):
        from . import _image_adapter

        return getattr(_image_adapter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

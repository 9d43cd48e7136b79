"""Model families, one module each, found by file name.

A module exports `ADAPTER`, an `unidpo_mm.adapter.AdapterFamily`. Modules whose names start with an
underscore contain shared functions. docs/families.md describes how to add a family.
"""

__all__ = ["PLUGIN_API"]

PLUGIN_API = 1
"""Version of the plugin contract that these adapters were written for."""

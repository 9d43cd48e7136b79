"""Model families, one module each, found by file name.

A module exports `ADAPTER`, an `unidpo_mm.adapter.AdapterFamily`. Modules whose name starts with an
underscore hold shared functions. To add a family, see CONTRIBUTING.md.
"""

__all__ = ["PLUGIN_API"]

PLUGIN_API = 1
"""Version of the plugin contract that these adapters were written for."""

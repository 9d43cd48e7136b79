"""Where everything lies that may be thrown away: caches and fetched parts."""

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_folder"]

CACHE_VARIABLE = "UNIDPO_MM_CACHE"


def cache_folder(folder: Path | None = None) -> Path:
    """Return `folder` if given, else `$UNIDPO_MM_CACHE`, else `~/.cache/unidpo-mm`."""
    chosen = folder or os.environ.get(CACHE_VARIABLE) or Path("~/.cache/unidpo-mm")
    return Path(chosen).expanduser().resolve()

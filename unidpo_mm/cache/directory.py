"""The cache directory, which contains only what can be computed or downloaded again."""

import os
from pathlib import Path

__all__ = ["CACHE_VARIABLE", "cache_directory"]

CACHE_VARIABLE = "UNIDPO_MM_CACHE"


def cache_directory(directory: Path | None = None) -> Path:
    """Return `directory` if it is not None, else `$UNIDPO_MM_CACHE`, else `~/.cache/unidpo-mm`."""
    chosen = directory or os.environ.get(CACHE_VARIABLE) or Path("~/.cache/unidpo-mm")
    return Path(chosen).expanduser().resolve()

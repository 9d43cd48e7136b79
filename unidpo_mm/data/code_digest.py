"""Digests of source code, for caches of what the code computes."""

import contextlib
import hashlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["code_digest", "package_digest"]


def code_digest(code: Any) -> str:
    """Return the name of a class or function and a digest of its source.

    Versions alone do not cover a plugin in a user's file, nor this package while it is developed.
    """
    digest = hashlib.sha256()
    with contextlib.suppress(OSError, TypeError):
        source = Path(inspect.getsourcefile(code) or "")
        package = (source.parent / "__init__.py").is_file()
        for file in sorted(source.parent.glob("*.py")) if package else [source]:
            digest.update(file.read_bytes())
    return f"{code.__module__}.{code.__qualname__} {digest.hexdigest()}"


@cache
def package_digest() -> str:
    """Return a digest of the code that reads records into rows."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for file in sorted((*folder.rglob("*.py"), *(folder.parent / "records").glob("*.py"))):
        digest.update(file.read_bytes())
    digest.update((folder.parent / "reasoning.py").read_bytes())
    return digest.hexdigest()

"""Fetches pictures from addresses, where the user asked for it, once each."""

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path

from ..cache.folder import cache_folder

__all__ = ["fetched"]

SECONDS = 30
MAX_BYTES = 64_000_000
"""Most bytes of a picture as it is sent."""
SCHEMES = ("http", "https")


def fetched(url: str) -> bytes:
    """Returns what stands at an address, from disk where it was fetched before.

    Raises:
        OSError: If it cannot be reached, is larger than 64 MB, or is no address of the web.
    """
    kept = _place(url)
    if kept.is_file():
        return kept.read_bytes()
    if url.partition("://")[0].lower() not in SCHEMES:
        raise OSError(f"only {' and '.join(SCHEMES)} are fetched")
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "unidpo-mm"})
    except ValueError as error:
        raise OSError(str(error)) from error
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            content: bytes = answer.read(MAX_BYTES + 1)
    except (
        ValueError,
        http.client.HTTPException,
    ) as error:
        raise OSError(str(error) or type(error).__name__) from error
    if len(content) > MAX_BYTES:
        raise OSError(f"it is larger than {MAX_BYTES // 1_000_000} MB")
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_name(f"{kept.name}.{os.getpid()}.part")  # two workers may fetch the same
    scratch.write_bytes(content)
    scratch.replace(kept)
    return content


def _place(url: str) -> Path:
    return cache_folder() / "pictures" / hashlib.sha256(url.encode()).hexdigest()

"""Measure rows with an index, so that a second start or another rank need not encode them.

The key of a row is the digest of its content, with the content of its images, so a row is found
again in any file and at any place. Rows with problems are not part of the index: they are encoded
at each start, and reported.
"""

import contextlib
import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..adapter import Adapter
from ..cache.row_index import COLUMNS, add_rows, index_path, read_rows
from ..records import PreferenceRow
from .digest import row_digests
from .measure import MeasuredRow, measure_rows

__all__ = ["measure_with_index"]

PACKAGES = ("unidpo-mm", "transformers", "tokenizers", "pillow")
"""Packages whose version may change how a row is encoded."""


def measure_with_index(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Yield the measurements of rows in order; encode only those that the index does not have.

    Args:
        rows: The rows.
        adapter: The adapter of the model.
        workers: Number of worker processes.
    """
    fingerprint = encoding_fingerprint(adapter)
    if fingerprint is None:
        yield from measure_rows(rows, adapter, workers=workers)
        return
    path = index_path(fingerprint)
    index = {key: MeasuredRow(**values) for key, values in read_rows(path).items()}
    keys = row_digests(rows)
    missing = [row for row, key in zip(rows, keys, strict=True) if key not in index]
    encoded = measure_rows(missing, adapter, workers=workers)
    added: dict[bytes, dict[str, Any]] = {}
    for key in keys:
        measured = index.get(key) or next(encoded)
        if key not in index and not measured.problems:
            names = (name for name in COLUMNS.names if name != "key")
            added[key] = {name: getattr(measured, name) for name in names}
        yield measured
    if added:
        add_rows(path, added)


def encoding_fingerprint(adapter: Adapter) -> str | None:
    """Return a digest of everything that decides how rows are encoded.

    It is `None` if that cannot be compared: the adapter does not expose its options and limits, or
    its tokenizer is not one of the library `tokenizers`.
    """
    tokenizer = getattr(adapter.processor, "tokenizer", adapter.processor)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not (hasattr(adapter, "options") and hasattr(adapter, "limits")):
        return None
    image_processor = getattr(adapter.processor, "image_processor", None)
    content = {
        "versions": {name: version(name) for name in PACKAGES},
        "code": [_code(type(adapter)), _code(type(adapter.processor))],
        "options": [repr(adapter.options), repr(adapter.limits)],
        "tokenizer": backend.to_str(),
        "templates": [_template(adapter.processor), _template(tokenizer)],
        "images": None if image_processor is None else image_processor.to_dict(),
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _code(kind: type) -> str:
    """Return the name of a class and a digest of its source.

    Versions alone do not cover a family in a user's file, nor this package while it is developed.
    """
    digest = hashlib.sha256()
    with contextlib.suppress(OSError, TypeError):
        source = Path(inspect.getsourcefile(kind) or "")
        package = (source.parent / "__init__.py").is_file()
        for file in sorted(source.parent.glob("*.py")) if package else [source]:
            digest.update(file.read_bytes())
    return f"{kind.__module__}.{kind.__qualname__} {digest.hexdigest()}"


def _template(processor: Any) -> str:
    return str(getattr(processor, "chat_template", None))

"""Encode rows and keep their lengths, or the problems of those that cannot be encoded.

With an index, a second start or another rank need not encode the rows again. The key of a row is
the digest of its content, with the content of its images, so it does not depend on its file and
place. Rows with problems are not part of the index: they are encoded at each start, and reported.
"""

import contextlib
import functools
import hashlib
import inspect
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from ..adapter import Adapter, encode_checked
from ..cache.row_index import COLUMNS, add_rows, index_path, read_rows
from ..errors import DataError, Problem
from ..extras import installed_version
from ..records import MEDIA_KINDS, PreferenceRow
from .digest import row_digests

__all__ = ["MeasuredRow", "measure_rows", "measure_with_index"]

PACKAGES = ("unidpo-mm", "transformers", "tokenizers", "pillow", "av")
"""Packages whose version may change how a row is encoded."""


@dataclass(frozen=True)
class MeasuredRow:
    """Lengths and counts of an encoded row.

    Attributes:
        prompt: Tokens of the prompt, including images; 0 if the row cannot be encoded.
        responses: Tokens of each response; empty if the row cannot be encoded.
        images: Tokens of images.
        videos: Tokens of videos; 0 for families that take frames as images.
        pairs: Number of pairs.
        truncated: Responses truncated to fit `max_length`.
        shrunk: Images scaled down to fit `max_length`.
        shortened: Videos with fewer or smaller frames to fit `max_length`.
        identical: Pairs whose responses have the same tokens, for example after truncation.
        problems: Why the row cannot be encoded.
        kind: Class of that error.
    """

    prompt: int = 0
    responses: tuple[int, ...] = ()
    images: int = 0
    videos: int = 0
    pairs: int = 0
    truncated: int = 0
    shrunk: int = 0
    shortened: int = 0
    identical: int = 0
    problems: tuple[Problem, ...] = ()
    kind: type[DataError] = DataError

    @property
    def longest(self) -> int:
        """Tokens of the longest plain row, which is the prompt and one response."""
        return self.prompt + max(self.responses)

    @property
    def plain(self) -> int:
        """Tokens of all plain rows, without padding."""
        return len(self.responses) * self.prompt + sum(self.responses)

    @property
    def packed(self) -> int:
        """Tokens of the packed row, in which the responses share the prompt."""
        return self.prompt + sum(self.responses)


def measure_rows(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Encode rows in worker processes (0: in this one) and yield their measurements in order."""
    dataset: Any = rows
    measure = functools.partial(_measured, adapter)
    return iter(DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=measure))


def measure_with_index(
    rows: Sequence[PreferenceRow], adapter: Adapter, *, workers: int = 0
) -> Iterator[MeasuredRow]:
    """Yield the measurements of rows in order; encode only those that the index does not have."""
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
    media_processors = (
        getattr(adapter.processor, f"{kind}_processor", None) for kind in MEDIA_KINDS
    )
    content = {
        "versions": {name: _version(name) for name in PACKAGES},
        "code": [_code(type(adapter)), _code(type(adapter.processor))],
        "options": [repr(adapter.options), repr(adapter.limits)],
        "tokenizer": backend.to_str(),
        "templates": [_template(adapter.processor), _template(tokenizer)],
        "media": [None if item is None else item.to_dict() for item in media_processors],
    }
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _version(package: str) -> str | None:
    """Return the version of a package; `None` if it is not installed."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None


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


def _measured(adapter: Adapter, row: PreferenceRow) -> MeasuredRow:
    try:
        group = encode_checked(adapter, row)
    except DataError as error:
        return MeasuredRow(problems=error.problems, kind=type(error))
    return MeasuredRow(
        prompt=group.prompt_ids.numel(),
        responses=tuple(ids.numel() for ids in group.response_ids),
        images=group.images.tokens,
        videos=group.videos.tokens,
        pairs=len(group.preferences.pairs),
        truncated=group.cut_responses,
        shrunk=group.images.shrunk,
        shortened=group.videos.shrunk,
        identical=sum(
            torch.equal(group.response_ids[pair.chosen], group.response_ids[pair.rejected])
            for pair in group.preferences.pairs
        ),
    )

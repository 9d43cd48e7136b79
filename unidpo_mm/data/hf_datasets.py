"""Records of `datasets` data sets: in memory, saved to disk, or on a hub."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem
from .files import ArrowRecord, Record
from .invalid_value import brief
from .locations import SourceListing, SourceLocation

__all__ = [
    "arrow_records",
    "dataset_fingerprint",
    "hub_listing",
    "record_list_problem",
    "saved_records",
]


def record_list_problem(records: Any, name: str) -> Problem | None:
    """Return the problem of a value that is not a list of records; `None` if it is one."""
    if isinstance(records, Mapping):
        text = f"got {type(records).__name__} of {', '.join(map(str, records)) or 'nothing'}"
    elif isinstance(records, str | bytes | Path) or not hasattr(records, "__iter__"):
        text = f"got {type(records).__name__} ({brief(records)!r})"
    elif hasattr(records, "iterrows"):
        text = "got a pandas table"
    else:
        return None
    remedy = "Pass a list of records, a Dataset, or one of the splits of a DatasetDict"
    return Problem(name, f"expected a list of rows, {text}", remedy)


def arrow_records(dataset: Any) -> Iterator[Any]:
    """Yield the records of a `Dataset` in memory, marked as records of Arrow.

    Arrays and tensors come as lists, unless the user has set a transform.
    """
    if (getattr(dataset, "format", None) or {}).get("type") != "custom":
        dataset = _without_decoding(dataset.with_format(None))
    for record in dataset:
        yield ArrowRecord(record) if isinstance(record, Mapping) else record


def saved_records(location: SourceLocation) -> Iterator[Record]:
    """Return the records of a directory that was saved by `save_to_disk` of `datasets`."""
    from datasets import DatasetDict, load_from_disk

    location.refuse(subset="a saved data set has no subsets")
    try:
        dataset = load_from_disk(location.path)
    except Exception as error:  # the library raises errors of many kinds
        problem = f"the saved data set cannot be read ({error})"
        raise DataError(Problem(location.path, problem, "Save it again")) from error
    if not isinstance(dataset, DatasetDict):
        location.refuse(split="this data set was saved without splits")
        return _records(dataset, location.path)
    return _records(dataset[location.chosen_split(dataset)], location.path)


def hub_listing(location: SourceLocation) -> SourceListing:
    """Return the records of a data set on a hub.

    Raises:
        DataError: If it cannot be loaded.
    """
    from datasets import load_dataset

    split = location.split or "train"
    try:
        streaming = location.streaming
        dataset = load_dataset(location.path, location.subset, split=split, streaming=streaming)
    except Exception as error:  # the library raises errors of many kinds
        problem = f"neither a local file nor a data set that can be loaded ({error})"
        about_split = "split" in str(error)  # then the library lists the splits
        remedy = "Set the source's 'split' to one of them" if about_split else "Correct the path"
        raise DataError(Problem(location.path, problem, remedy)) from error
    fingerprint = None if streaming else dataset_fingerprint(dataset)
    files = tuple(Path(file["filename"]) for file in getattr(dataset, "cache_files", ()))
    return SourceListing(
        _records(dataset, location.path),
        files=None if fingerprint is None else files,
        fingerprint=fingerprint,
    )


def dataset_fingerprint(dataset: Any) -> str | None:
    """Return what identifies the records of a `Dataset`; `None` if a transform changes them."""
    if (getattr(dataset, "format", None) or {}).get("type") == "custom":
        return None
    fingerprint = getattr(dataset, "_fingerprint", None)
    return None if fingerprint is None else str(fingerprint)


def _records(dataset: Any, path: str) -> Iterator[Record]:
    for number, record in enumerate(_without_decoding(dataset), start=1):
        yield path, number, ArrowRecord(record)


def _without_decoding(dataset: Any) -> Any:
    """Return a data set whose media come as bytes or paths, also inside nested features."""
    if not getattr(dataset, "features", None):
        return dataset
    return dataset.cast(type(dataset.features)(_undecoded(dict(dataset.features))))


def _undecoded(feature: Any) -> Any:
    import datasets

    names = ("Image", "Video")  # older releases have no videos
    for kind in (getattr(datasets, name) for name in names if hasattr(datasets, name)):
        if isinstance(feature, kind):
            return kind(decode=False)
    if isinstance(feature, Mapping):
        return {name: _undecoded(inner) for name, inner in feature.items()}
    if isinstance(feature, list):
        return [_undecoded(inner) for inner in feature]
    inner = getattr(feature, "feature", None)
    if inner is not None and dataclasses.is_dataclass(feature) and not isinstance(feature, type):
        return dataclasses.replace(feature, feature=_undecoded(inner))
    return feature

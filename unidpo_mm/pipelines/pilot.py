"""Measurements of a pilot: lengths of responses, sizes of files, and times."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..inference.store import MANIFEST
from .files import Files, sampling_settings
from .load import Making
from .timing import Timing

__all__ = ["Pilot", "find_pilot"]


@dataclass(frozen=True)
class Pilot:
    """A finished or interrupted pilot.

    Attributes:
        prompts: Number of its prompts.
        new_tokens: Mean number of new tokens of the responses to each prompt.
        size: Bytes of its files, without its page.
        timing: How long its stages took; `None` if that is not stored.
    """

    prompts: int
    new_tokens: list[float]
    size: int
    timing: Timing | None


def find_pilot(making: Making) -> tuple[Pilot | None, str]:
    """Return the largest usable pilot of a recipe, and why there is none."""
    reason = "there is no pilot yet"
    for files in Files.pilots(making.recipe.directory):
        pilot, reason = _pilot_of(files, making)
        if pilot is not None:
            return pilot, ""
    return None, reason


def _pilot_of(files: Files, making: Making) -> tuple[Pilot | None, str]:
    prompts = sum(1 for _ in _lines(files.prompts))
    if not prompts:
        return None, "there is no pilot yet"
    tokens: dict[str, list[int]] = defaultdict(list)
    for record in _lines(files.responses):
        if MANIFEST in record:
            if record[MANIFEST].get("sampling") != sampling_settings(making.recipe.sample):
                return None, "the pilot was sampled with other settings"
        elif "new_tokens" in record:
            tokens[record["id"].rpartition("#")[0]].append(record["new_tokens"])
    means = [fmean(values) for values in tokens.values()]
    return Pilot(prompts, means, _size(files), Timing.of(files.timing)), ""


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a file; none of a missing or damaged one, which a new run replaces."""
    try:
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
    except (OSError, ValueError):
        return


def _size(files: Files) -> int:
    return sum(
        path.stat().st_size
        for path in files.directory.rglob("*")
        if path.is_file() and path != files.page
    )

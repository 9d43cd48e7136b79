"""Suites: benchmarks that are reported together, one YAML file each."""

from collections.abc import Mapping
from functools import cache

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from ..discovery import load_shipped, shipped_names

__all__ = ["Published", "Suite", "load_suite", "suite_names"]

STRICT = ConfigDict(extra="forbid")


@validated(frozen=True, config=STRICT)
class Published:
    """Values that somebody published, as a row beside one's own.

    Attributes:
        name: Whose.
        values: Benchmark -> value of its headline.
    """

    name: str
    values: Mapping[str, float]


@validated(frozen=True, config=STRICT)
class Suite:
    """Benchmarks that are reported together.

    Attributes:
        id: Name of its file.
        title: As people call it.
        protocol: The rules that all are scored by.
        benchmarks: In the order of the report.
        published: Rows of others.
        warnings: What has to be known beside the published values.
        average: Decimals that headlines are rounded to before their mean; None for no mean.
        subset: Clusters of each benchmark that are scored; None for all.
        seed: Draws them.
    """

    id: str
    title: str
    protocol: str
    benchmarks: tuple[str, ...]
    published: tuple[Published, ...] = ()
    warnings: tuple[str, ...] = ()
    average: int | None = None
    subset: int | None = None
    seed: int = 0


def suite_names() -> tuple[str, ...]:
    """Returns the names of all suites."""
    return shipped_names(__name__)


@cache
def load_suite(name: str) -> Suite:
    """Returns the suite of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    return load_shipped(__name__, name, Suite, "--suite")

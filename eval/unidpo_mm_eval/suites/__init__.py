"""Suites: benchmarks that are reported together, in one YAML file each."""

from collections.abc import Mapping
from functools import cache

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as validated

from ..discovery import read_yaml, yaml_names

STRICT = ConfigDict(extra="forbid")


@validated(frozen=True, config=STRICT)
class Published:
    """Published values, reported as a row next to one's own."""

    name: str  # Name of the row
    values: Mapping[str, float]  # Benchmark -> value of its headline metric


@validated(frozen=True, config=STRICT)
class Suite:
    """Benchmarks that are reported together."""

    id: str  # Name of its file
    title: str  # Name in tables
    protocol: str  # Name of the protocol of all its benchmarks
    benchmarks: tuple[str, ...]  # In the order of the report
    published: tuple[Published, ...] = ()  # Rows with published values
    warnings: tuple[str, ...] = ()  # Caveats of the published values
    # Decimals to which headline metrics are rounded before averaging; `None` for no average
    average: int | None = None
    limit: int | None = None  # Maximum number of clusters per benchmark; `None` for all
    seed: int = 0  # Seed with which these clusters are drawn


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites."""
    return yaml_names(__name__)


@cache
def load_suite(name: str) -> Suite:
    """Load a suite."""
    return TypeAdapter(Suite).validate_python(read_yaml(__name__, name, "--suite"))

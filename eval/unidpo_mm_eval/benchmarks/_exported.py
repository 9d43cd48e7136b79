"""Shared by sets of instructions whose answers another tool judges."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..stats.metrics import Metrics
from . import Benchmark, Rules

__all__ = ["exported_benchmark"]


def exported_benchmark(
    name: str,
    title: str,
    read: Callable[[Path, bool], DataSet],
    *,
    rows: int,
    files: tuple[str, ...],
    layout: str,
) -> Benchmark:
    """Returns a set of instructions; its answers are exported by the bridge of the same name.

    Args:
        name: Of its file, and of the bridge.
        title: As people call it.
        read: Reads the instructions.
        rows: How many a whole file has.
        files: What it is called where it is downloaded.
        layout: For messages.
    """

    def refuse(asked: Sequence[tuple[Sample, str]], options: Mapping[str, Any]) -> Sequence[Judged]:
        found = f"answers to {title} are judged by its own command"
        remedy = f"Write them for it: `unidpo-mm eval export {name}`"
        raise RecipeError(Problem("--benchmark", found, remedy))

    rules = Rules(judge_all=refuse, metrics=_none, headline="score", by_judge=True)
    return Benchmark(
        name=name,
        title=title,
        read=read,
        families={"judge": rules},
        expected={"rows": rows},
        files=files,
        layouts=(layout,),
        bridge=name,
    )


def _none(scored: Sequence[ScoredSample]) -> Metrics:
    return Metrics()

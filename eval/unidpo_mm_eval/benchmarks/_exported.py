"""Shared by instruction benchmarks whose responses are scored by another tool's own command."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError

from ..data.dataset import Dataset
from ..data.samples import Grade, Sample
from ..stats.metrics import Metrics
from . import Benchmark, Scorer


def exported_benchmark(
    name: str,
    title: str,
    read: Callable[[Path, bool], Dataset],
    *,
    rows: int,
    file: str,
    layout: str,
) -> Benchmark:
    """Build an instruction benchmark whose responses the bridge of the same name exports."""

    def refuse(
        responses: Sequence[tuple[Sample, str]], options: Mapping[str, Any]
    ) -> Sequence[Grade]:
        text = f"responses to {title} are judged by its own command"
        remedy = f"Export them with `unidpo-mm eval export {name}`"
        raise RecipeError(Problem("--benchmark", text, remedy))

    scorer = Scorer(
        grade_all=refuse, metrics=lambda samples: Metrics(), headline="score", uses_judge=True
    )
    return Benchmark(
        name=name,
        title=title,
        read=read,
        scorers={"judge": scorer},
        expected={"rows": rows},
        files=(file,),
        layouts=(layout,),
        bridge=name,
    )

"""Do two backends say the same? A checkpoint in this process beside a server of the same model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.predictions import read_predictions
from ..models.chat import ChatClient
from ..models.checkpoint import find_checkpoint, load_checkpoint
from ..models.processes import processes
from ..results.result import Result
from .eval_run import Settings, answer_benchmark, asking, score_run
from .plan import Plan
from .served import answer_by_endpoint, asking_endpoint

__all__ = ["Parity", "compare_backends"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How alike two backends are on one benchmark.

    Attributes:
        benchmark: Its title.
        n: Questions.
        same_answer: On which both say the same, word by word.
        same_score: On which both score the same.
        results: Of both.
        first: Id of the first question with another answer, with both answers; None for none.
    """

    benchmark: str
    n: int
    same_answer: int
    same_score: int
    results: tuple[Result, Result]
    first: tuple[str, str, str] | None


def compare_backends(
    checkpoint: str, client: ChatClient, plan: Plan, *, dtype: str, **options: Any
) -> list[Parity]:
    """Returns how alike a checkpoint and a server are on each benchmark of a plan.

    Args:
        checkpoint: A folder or hub name.
        client: The server of the same model.
        plan: Which benchmarks.
        dtype: Number format of the checkpoint's weights.
        options: Of `Settings`.
    """
    found = find_checkpoint(checkpoint)
    loaded = load_checkpoint(found, dtype=dtype, device=processes().device)
    prompt = options.pop("prompt", None) or plan.protocol.prompt_of(loaded.family.name)
    settings = Settings(protocol=plan.protocol, prompt=prompt, **options)
    compared = []
    for subject in plan.benchmarks:
        benchmark, data = subject.benchmark, subject.read()
        here = asking(loaded, benchmark, data, settings)
        there = asking_endpoint(client, "served", benchmark, data, settings)
        paths = [plan.path(name, benchmark) for name in ("here", "served")]
        answer_benchmark(here, paths[0], settings)
        answer_by_endpoint(there, paths[1], settings)
        results = [
            score_run(replace(one, benchmark=benchmark), path, plan.protocol)
            for one, path in zip((here, there), paths, strict=True)
        ]
        compared.append(_parity(benchmark.title, paths, (results[0], results[1])))
    return compared


def _parity(title: str, paths: list[Path], results: tuple[Result, Result]) -> Parity:
    said = [read_predictions(path).by_id for path in paths]
    other = [own for own in said[0] if said[0][own].response != said[1][own].response]
    both = list(zip(*(one.per_sample for one in results), strict=True))
    first = (other[0], *(one[other[0]].response for one in said)) if other else None
    return Parity(
        benchmark=title,
        n=len(said[0]),
        same_answer=len(said[0]) - len(other),
        same_score=sum(one.score == two.score for one, two in both),
        results=results,
        first=None if first is None else (first[0], first[1], first[2]),
    )

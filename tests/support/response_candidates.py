"""Candidates for tests of scorers of responses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import row

from unidpo_mm.pipelines.scorer import Candidate, Fault, Score, Scored, Scorer, ScoringContext


def candidates(
    *texts: str, prompt: str = "What is it?", gold: str | None = None, name: str = "p", **media: Any
) -> list[Candidate]:
    """Return the responses to a prompt, with its images or videos."""
    question = row(name, prompt, ("(none yet)",), (None,), pairs=(), **media)
    return [
        Candidate(id=f"{name}#{n}", prompt=question, text=text, gold=gold)
        for n, text in enumerate(texts)
    ]


def score(
    scorer: Scorer, items: Sequence[Candidate], folder: Path, *, batch_size: int = 8
) -> list[Scored]:
    """Return what a scorer returns for candidates."""
    return [*scorer.start(ScoringContext(directory=folder, batch_size=batch_size))(items)]


def values(results: Sequence[Scored]) -> list[float | str]:
    """Return scores as numbers and faults as their kinds."""
    return [
        item.kind if isinstance(item, Fault) else item.value if isinstance(item, Score) else item
        for item in results
    ]

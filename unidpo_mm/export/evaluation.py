"""Results of evaluations for a model card, from the JSON files that `unidpo-mm eval` writes."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, Problem

__all__ = ["Evaluation", "read_evaluation"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One metric of one model on one benchmark.

    Attributes:
        model: Name of the model.
        benchmark: Name of the benchmark.
        protocol: Name and version of the rules of scoring.
        metric: Name of the metric.
        value: Its value.
        interval: Its 95 % confidence interval; `None` for published values.
        difference: Its difference from the first model, with a 95 % interval of the difference, as
            (difference, low, high); `None` for the first model.
    """

    model: str
    benchmark: str
    protocol: str
    metric: str
    value: float
    interval: tuple[float, float] | None = None
    difference: tuple[float, float, float] | None = None


def read_evaluation(path: Path) -> list[Evaluation]:
    """Read the file of `unidpo-mm eval compare --json` or `unidpo-mm eval report --json`.

    Raises:
        DataError: If it is another file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return list(_compared(content) if "contrasts" in content else _reported(content))
    except OSError as error:
        problem = f"it cannot be read ({error.strerror or error})"
        raise DataError(Problem(str(path), problem, "Use an existing file")) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = "it does not contain results with intervals"
        remedy = "Use a file that `unidpo-mm eval report --json` or `eval compare --json` wrote"
        raise DataError(Problem(str(path), problem, remedy)) from error


def _compared(content: Mapping[str, Any]) -> Iterator[Evaluation]:
    metric = content["headline"]
    contrasts = {contrast["name"]: contrast for contrast in content["contrasts"]}
    for result in content["results"]:
        contrast = contrasts.get(result["name"])
        yield Evaluation(
            model=result["name"],
            benchmark=content["benchmark"],
            protocol=content["protocol"],
            metric=metric,
            value=result["metrics"][metric],
            interval=_interval(result["intervals"][metric]),
            difference=None
            if contrast is None
            else (contrast["differences"][metric], *_interval(contrast["intervals"][metric])),
        )


def _reported(content: Mapping[str, Any]) -> Iterator[Evaluation]:
    for row in content["rows"]:
        for cell in row["cells"]:
            yield Evaluation(
                model=row["name"],
                benchmark=cell["benchmark"],
                protocol=cell["protocol"],
                metric=cell["metric"],
                value=cell["value"],
                interval=_interval(cell["interval"]) if "interval" in cell else None,
                difference=(cell["difference"], *_interval(cell["interval_of_difference"]))
                if "difference" in cell
                else None,
            )


def _interval(content: Mapping[str, float]) -> tuple[float, float]:
    return content["low"], content["high"]

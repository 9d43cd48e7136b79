"""Compares results on the same samples: differences with intervals, tests, who is right where."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import load_benchmark
from ..data.samples import ScoredSample
from ..models.template_variables import VARIABLES
from ..stats.intervals import DRAWS, Interval, bootstrap, bootstrap_gaps
from ..stats.metrics import Metrics
from ..stats.paired import Paired, holm, paired_test
from .result import Result

__all__ = ["Comparison", "Contrast", "Measured", "compare", "measured"]

LEVEL = 0.95
HASH = 64
"""Characters of a hash."""
MADE = {"overrides": "way of asking", "reference": "reference", "beta": "beta"}
"""What two manifests have to agree on, where both have it, and what it is called."""


@dataclass(frozen=True)
class Measured:
    """A result with an interval of every metric.

    Attributes:
        result: The result.
        intervals: Metric -> 95 % interval, clusters drawn again.
    """

    result: Result
    intervals: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A result beside the first one.

    Attributes:
        name: Of the result.
        differences: Metric -> its value minus the first result's.
        intervals: Metric -> 95 % interval of that, the same clusters drawn for both.
        paired: The test on the units' scores.
        p_corrected: Its p after Holm's correction for all contrasts.
    """

    name: str
    differences: dict[str, float]
    intervals: dict[str, Interval]
    paired: Paired
    p_corrected: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results on the same samples.

    Attributes:
        names: Of the results, each its own.
        results: The results with intervals; the others are compared with the first.
        contrasts: One for each but the first.
    """

    names: tuple[str, ...]
    results: tuple[Measured, ...]
    contrasts: tuple[Contrast, ...]

    @property
    def first(self) -> Result:
        """The result that the others are compared with."""
        return self.results[0].result


def measured(result: Result, *, count: int = DRAWS) -> Measured:
    """Return a result with the intervals of its metrics.

    Raises:
        DataError: If the rules of an earlier version gave it its headline.
    """
    intervals = bootstrap(_metrics(result), level=LEVEL, count=count)
    if result.headline not in intervals:
        text = f"its samples give no '{result.headline}': an earlier version scored it"
        raise DataError(Problem(f"result '{result.name}'", text, "Score the predictions again"))
    return Measured(result, intervals)


def compare(results: Sequence[Result], *, count: int = DRAWS) -> Comparison:
    """Returns how results differ from the first one.

    Args:
        results: Two or more, of one benchmark, one protocol and the same data.
        count: Resamples of an interval.

    Raises:
        DataError: If they are not of the same benchmark, protocol version and data.
    """
    _refuse_mixed(results)
    names = _names(results)
    whole = [_metrics(result) for result in results]
    values = [metrics.values() for metrics in whole]
    tests = [_test(results[0], one) for one in results[1:]]
    corrected = holm([test.p for test in tests])
    contrasts = []
    for number, (test, p) in enumerate(zip(tests, corrected, strict=True), start=1):
        shared = [name for name in values[0] if name in values[number]]
        contrasts.append(
            Contrast(
                name=names[number],
                differences={name: values[number][name] - values[0][name] for name in shared},
                intervals=bootstrap_gaps(whole[0], whole[number], level=LEVEL, count=count),
                paired=test,
                p_corrected=p,
            )
        )
    return Comparison(
        names=names,
        results=tuple(measured(result, count=count) for result in results),
        contrasts=tuple(contrasts),
    )


def _refuse_mixed(results: Sequence[Result]) -> None:
    first, problems = results[0], []
    for result in results:
        if not result.per_sample:
            remedy = "Score the predictions again"
            problems.append(Problem(f"result '{result.name}'", "it holds no sample", remedy))
    for number, result in enumerate(results[1:], start=2):
        sides = (
            ("benchmark", first.benchmark, result.benchmark),
            ("protocol", first.protocol.label, result.protocol.label),
            ("data", first.data.sha256, result.data.sha256),
            ("judge", _judge(first), _judge(result)),
            ("sampling", *_samplings(first, result)),
            *(
                (MADE[what], first.manifest[what], result.manifest[what])
                for what in MADE
                if what in first.manifest and what in result.manifest
            ),
        )
        for what, one, other in sides:
            if one != other:
                mine, theirs = _short(str(other)), _short(str(one))
                found = f"its {what} is {mine}, that of '{first.name}' {theirs}"
                remedy = "Score both again with the same data and protocol"
                problems.append(Problem(f"result {number}, '{result.name}'", found, remedy))
        if [one.id for one in first.per_sample] != [one.id for one in result.per_sample]:
            found = f"its samples are not those of '{first.name}'"
            problems.append(Problem(f"result '{result.name}'", found, "Score both again"))
    if problems:
        raise DataError(problems)


def _samplings(first: Result, second: Result) -> tuple[str, str]:
    """Return the sampling parameters that requests to both have; equal if one is not served."""
    manifests = first.manifest, second.manifest
    if not all(str(record.get("backend", "")).startswith("endpoint ") for record in manifests):
        return "", ""
    mine, other = (record.get("sampling") for record in manifests)
    if not mine or not other:
        unknown = "not recorded: an earlier version left parameters to the server"
        return ("recorded" if mine else unknown), ("recorded" if other else unknown)
    shared = sorted({*mine} & {*other} - {VARIABLES})
    texts = [json.dumps({name: record[name] for name in shared}) for record in (mine, other)]
    return texts[0], texts[1]


def _judge(result: Result) -> str:
    if result.judge is None:
        return "none"
    return result.judge.name + (", errors left out" if result.judge.errors_left_out else "")


def _short(text: str) -> str:
    """Returns a name; of a hash its beginning, and which part of the data was scored."""
    beginning, _, part = text.partition("-")
    if len(beginning) < HASH:
        return text
    clusters, _, seed = part.partition("-")
    return beginning[:12] + (f" ({clusters} clusters, drawn by seed {seed})" if part else "")


def _names(results: Sequence[Result]) -> tuple[str, ...]:
    """Returns a name for each result; equal ones get their number."""
    names = [
        result.name + (", shuffled pictures" if _is_control(result) else "") for result in results
    ]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    )


def _is_control(result: Result) -> bool:
    """Says whether pictures were shuffled, and the model has no name that says so."""
    seed = result.manifest.get("shuffled_pictures")
    return seed is not None and "shuffled" not in result.name


def _metrics(result: Result) -> Metrics:
    """Returns the metrics; clusters are those of all samples, whatever a benchmark counts."""
    rules = load_benchmark(result.benchmark).rules(result.protocol.scoring)
    found = rules.measured(result.per_sample, result.judge)
    for one in result.per_sample:
        found.sums.touch(one.cluster)
    return found


def _test(first: Result, second: Result) -> Paired:
    """Returns the test on the units that both results have."""
    mine, other = _units(first), _units(second)
    shared = [unit for unit in mine if unit in other]
    return paired_test(
        {unit: mine[unit] for unit in shared},
        {unit: other[unit] for unit in shared},
        _clusters(first),
    )


def _units(result: Result) -> dict[str, float]:
    rules = load_benchmark(result.benchmark).rules(result.protocol.scoring)
    if rules.unit_scores is not None:
        return rules.unit_scores(result.per_sample)
    return {one.id: one.score for one in result.per_sample}


def _clusters(result: Result) -> dict[str, str]:
    by_unit: dict[str, str] = {}
    samples: Sequence[ScoredSample] = result.per_sample
    for one in samples:
        by_unit.setdefault(one.id, one.cluster)
        by_unit.setdefault(one.unit, one.cluster)
    return by_unit

"""Comparison of results on the same samples: differences with intervals, and paired tests."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.inference.template_variables import VARIABLES

from ..benchmarks import Scorer, load_benchmark
from ..stats.intervals import RESAMPLES, Interval, bootstrap, bootstrap_differences
from ..stats.metrics import Metrics
from ..stats.paired import PairedTest, holm, paired_test
from .result import Result

HASH = 64
"""Number of characters of a hash."""
SETTINGS = {"overrides": "way of prompting", "reference": "reference", "beta": "beta"}
"""Manifest keys that have to be equal if both results have them, and their description."""


@dataclass(frozen=True)
class ResultWithIntervals:
    """A result with a 95 % interval of every metric, over clusters."""

    result: Result
    intervals: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """The difference of a result from the first one."""

    name: str  # Name of the result
    differences: dict[str, float]  # Metric -> its value minus the first result's
    # Metric -> 95 % interval of the difference, from the same resamples for both
    intervals: dict[str, Interval]
    paired: PairedTest  # The test on the units' scores
    p_corrected: float  # p-value after Holm's correction for all contrasts


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Results on the same samples."""

    names: tuple[str, ...]  # Unique names of the results
    # The results with intervals; the others are compared with the first
    results: tuple[ResultWithIntervals, ...]
    contrasts: tuple[Contrast, ...]  # One for each result except the first

    @property
    def first(self) -> Result:
        """The result that the others are compared with."""
        return self.results[0].result


def with_intervals(result: Result, *, count: int = RESAMPLES) -> ResultWithIntervals:
    """Compute the intervals of a result's metrics."""
    intervals = bootstrap(_metrics(result), count=count)
    if result.headline not in intervals:
        text = f"its samples have no metric '{result.headline}': an earlier version scored it"
        raise DataError(Problem(f"result '{result.name}'", text, "Score the predictions again"))
    return ResultWithIntervals(result, intervals)


def compare(results: Sequence[Result], *, count: int = RESAMPLES) -> Comparison:
    """Compare two or more results with the first, using `count` resamples.

    Raises:
        DataError: If they are not of the same benchmark, protocol version and data.
    """
    _check_comparable(results)
    names = _names(results)
    metrics = [_metrics(result) for result in results]
    values = [measured.values() for measured in metrics]
    tests = [_test(results[0], result) for result in results[1:]]
    corrected = holm([test.p for test in tests])
    contrasts = [
        Contrast(
            name=names[n],
            differences={k: values[n][k] - values[0][k] for k in values[0] if k in values[n]},
            intervals=bootstrap_differences(metrics[0], metrics[n], count=count),
            paired=test,
            p_corrected=p,
        )
        for n, (test, p) in enumerate(zip(tests, corrected, strict=True), start=1)
    ]
    return Comparison(
        names=names,
        results=tuple(with_intervals(result, count=count) for result in results),
        contrasts=tuple(contrasts),
    )


def _check_comparable(results: Sequence[Result]) -> None:
    first = results[0]
    problems = [
        Problem(f"result '{result.name}'", "no samples", "Score the predictions again")
        for result in results
        if not result.per_sample
    ]
    for number, result in enumerate(results[1:], start=2):
        where = f"result {number}, '{result.name}'"
        sides = (
            ("benchmark", first.benchmark, result.benchmark),
            ("protocol", first.protocol.label, result.protocol.label),
            ("data", first.data.sha256, result.data.sha256),
            ("judge", _judge(first), _judge(result)),
            ("sampling", *_samplings(first, result)),
            *(
                (text, first.manifest[key], result.manifest[key])
                for key, text in SETTINGS.items()
                if key in first.manifest and key in result.manifest
            ),
        )
        for setting, left, right in sides:
            if left != right:
                text = f"its {setting} is {_short(str(right))}, that of '{first.name}' is "
                remedy = "Score both again with the same data and protocol"
                problems.append(Problem(where, text + _short(str(left)), remedy))
        if [s.id for s in first.per_sample] != [s.id for s in result.per_sample]:
            text = f"its samples differ from those of '{first.name}'"
            problems.append(Problem(where, text, "Score both again"))
    if problems:
        raise DataError(problems)


def _samplings(first: Result, second: Result) -> tuple[str, str]:
    """Return the sampling parameters that both requests have; equal unless both are served."""
    manifests = first.manifest, second.manifest
    if not all(str(manifest.get("backend", "")).startswith("endpoint ") for manifest in manifests):
        return "", ""
    left, right = (manifest.get("sampling") for manifest in manifests)
    if not left or not right:
        unknown = "not recorded (an earlier version left parameters to the server)"
        return ("recorded" if left else unknown), ("recorded" if right else unknown)
    shared = sorted({*left} & {*right} - {VARIABLES})
    texts = [json.dumps({name: record[name] for name in shared}) for record in (left, right)]
    return texts[0], texts[1]


def _judge(result: Result) -> str:
    if result.judge is None:
        return "none"
    return result.judge.name + (", errors skipped" if result.judge.errors_left_out else "")


def _short(text: str) -> str:
    """Return a name; for a hash its beginning, and which part of the data was scored."""
    beginning, _, part = text.partition("-")
    if len(beginning) < HASH:
        return text
    clusters, _, seed = part.partition("-")
    return beginning[:12] + (f" ({clusters} clusters, seed {seed})" if part else "")


def _names(results: Sequence[Result]) -> tuple[str, ...]:
    """Return a name for each result; equal names are numbered."""
    names = [
        f"{result.name}, shuffled images"
        if result.manifest.get("shuffled_images") is not None and "shuffled" not in result.name
        else result.name
        for result in results
    ]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, start=1)
    )


def _scorer(result: Result) -> Scorer:
    return load_benchmark(result.benchmark_file or result.benchmark).scorer(result.protocol.scoring)


def _metrics(result: Result) -> Metrics:
    """Return the metrics over the clusters of all samples, even those that do not count."""
    metrics = _scorer(result).measure(result.per_sample, result.judge)
    for sample in result.per_sample:
        metrics.sums.include(sample.cluster)
    return metrics


def _test(first: Result, second: Result) -> PairedTest:
    """Test two results on the units that both have."""
    left, right = _unit_scores(first), _unit_scores(second)
    units = [unit for unit in left if unit in right]
    clusters: dict[str, str] = {}
    for sample in first.per_sample:
        clusters.setdefault(sample.id, sample.cluster)
        clusters.setdefault(sample.unit, sample.cluster)
    return paired_test({u: left[u] for u in units}, {u: right[u] for u in units}, clusters)


def _unit_scores(result: Result) -> dict[str, float]:
    scorer = _scorer(result)
    if scorer.unit_scores is not None:
        return scorer.unit_scores(result.per_sample)
    return {sample.id: sample.score for sample in result.per_sample}

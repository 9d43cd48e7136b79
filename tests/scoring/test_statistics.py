"""Intervals have nominal coverage, tests agree with scipy, metrics are computed per resample."""

import functools
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from unidpo_mm_eval.stats import intervals
from unidpo_mm_eval.stats.intervals import bootstrap, bootstrap_differences, resample, wilson
from unidpo_mm_eval.stats.metrics import Metrics, mean_metrics, ratio
from unidpo_mm_eval.stats.paired import holm, mcnemar, paired_test, sign_flips

RUNS = [300, pytest.param(1000, marks=pytest.mark.slow)]
"""Numbers of data sets that are drawn."""
GAMMA_RATIO = math.gamma(3.5) * math.gamma(5) / (math.gamma(3) * math.gamma(5.5))
"""The mean of the square root of a number from Beta(3, 2)."""


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse draws of the same seed, which take most of the time of a thousand intervals."""
    resamples = intervals.resamples

    @functools.cache
    def reused(clusters: int, count: int, seed: int) -> list[np.ndarray]:
        return list(resamples(clusters, count, seed))

    monkeypatch.setattr(intervals, "resamples", reused)


def means(scores: np.ndarray, size: int) -> Metrics:
    """Return the mean over scores in clusters of a size."""
    rows = [(f"c{n // size}", float(score), {}) for n, score in enumerate(scores)]
    return mean_metrics("accuracy", rows)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize(("size", "kind"), [(1, "bca"), (4, "bca"), (4, "percentile")])
def test_intervals_have_their_nominal_coverage(size: int, kind: str, runs: int) -> None:
    """Between 93 and 97 %, also if the samples of a cluster are similar."""
    rng = np.random.default_rng(5)
    clusters, held = 120, 0
    for _ in range(runs):
        key = rng.beta(3, 2, size=clusters)  # mean 0.6
        scores = (rng.random((clusters, size)) < key[:, None]).astype(float)
        actual = bootstrap(means(scores.ravel(), size), kind=kind, count=300, seed=1)["accuracy"]
        held += actual.low <= 60 <= actual.high
    assert 0.93 <= held / runs <= 0.97


@pytest.mark.usefixtures("drawn_once")
def test_intervals_that_ignore_clusters_cover_too_rarely() -> None:
    rng = np.random.default_rng(6)
    held = 0
    for _ in range(200):
        scores = np.repeat(rng.random(60) < 0.6, 8).astype(float)  # copies of 60 samples
        actual = bootstrap(means(scores, 1), count=300)["accuracy"]
        held += actual.low <= 60 <= actual.high
    assert held / 200 < 0.7


@pytest.mark.usefixtures("drawn_once")
def test_the_interval_of_a_composite_metric_has_its_nominal_coverage() -> None:
    """F1 of a classifier that finds 70 % of the positives and says yes to 20 % of the others."""
    rng = np.random.default_rng(7)
    truth = 100 * 2 * 0.35 / (0.35 + 0.10 + 0.5)
    held = 0
    for _ in range(300):
        yes = rng.random(300) < 0.5
        responses = rng.random(300) < np.where(yes, 0.7, 0.2)
        metrics = Metrics()
        for n in range(300):
            metrics.sums.add(str(n), "both", 2 * (yes[n] and responses[n]))
            metrics.sums.add(str(n), "either", int(yes[n]) + int(responses[n]))
        metrics.formulas["f1"] = ratio("both", "either")
        actual = bootstrap(metrics, count=400)["f1"]
        held += actual.low <= truth <= actual.high
    assert 0.92 <= held / 300 <= 0.98


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_are_those_of_scipy(method: str) -> None:
    scores = np.random.default_rng(8).beta(2, 5, size=80)
    ours = bootstrap(means(scores, 1), kind=method, count=20_000)["accuracy"]
    theirs = scipy_stats.bootstrap(
        (100 * scores,), np.mean, n_resamples=20_000, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.25)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_of_differences_are_those_of_scipy(method: str) -> None:
    rng = np.random.default_rng(18)
    first, second = rng.beta(2, 5, size=80), rng.beta(3, 3, size=80)
    pair = means(first, 1), means(second, 1)
    ours = bootstrap_differences(*pair, kind=method, count=20_000)["accuracy"]
    theirs = scipy_stats.bootstrap(
        (100 * (second - first),), np.mean, n_resamples=20_000, method=method,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.3)


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("runs", RUNS)
def test_intervals_of_differences_have_their_nominal_coverage(runs: int) -> None:
    rng, held = np.random.default_rng(19), 0
    for _ in range(runs):
        key = rng.beta(3, 2, size=(100, 1))  # images that are hard for both
        draw = rng.random((2, 100, 3))
        first, second = (draw[0] < key).astype(float), (draw[1] < key**0.5).astype(float)
        truth = 100 * (GAMMA_RATIO - 0.6)
        pair = means(first.ravel(), 3), means(second.ravel(), 3)
        actual = bootstrap_differences(*pair, count=300, seed=1)["accuracy"]
        held += actual.low <= truth <= actual.high
    assert 0.93 <= held / runs <= 0.97


def test_a_resample_has_the_metric_of_the_samples_drawn() -> None:
    scores = np.array([1.0, 0.0, 0.5, 1.0])
    weights = np.array([[2, 0, 1, 1], [0, 4, 0, 0]])
    actual = resample(means(scores, 1), count=2, weights=weights)["accuracy"]
    assert actual == pytest.approx([100 * 3.5 / 4, 0.0])


def test_wilson_is_that_of_scipy() -> None:
    theirs = scipy_stats.binomtest(7, 30).proportion_ci(method="wilson")
    ours = wilson(7, 30)
    assert (ours.low, ours.high) == pytest.approx((100 * theirs.low, 100 * theirs.high))
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 100.0)


def test_mcnemar_is_the_binomial_test_on_units_that_differ() -> None:
    first = {str(n): float(n < 60) for n in range(100)}
    second = {str(n): float(n < 45 or n >= 95) for n in range(100)}
    actual = paired_test(first, second, {name: name for name in first})
    assert (actual.test, actual.only_first, actual.only_second) == ("mcnemar", 15, 5)
    assert actual.p == pytest.approx(scipy_stats.binomtest(5, 20, 0.5).pvalue)
    assert actual.difference == pytest.approx(-10.0)
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize("count", [8, 60])
def test_sign_flips_are_those_of_scipy(count: int) -> None:
    gaps = np.random.default_rng(9).normal(0.25, 1.0, size=count)
    theirs = scipy_stats.permutation_test(
        (gaps,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True,
        rng=np.random.default_rng(2),
    ).pvalue  # fmt: skip
    assert sign_flips(gaps) == pytest.approx(theirs, abs=1e-9 if count == 8 else 0.02)
    assert sign_flips([0.0, 0.0]) == 1.0


def test_samples_of_a_cluster_do_not_count_as_independent() -> None:
    first = {str(n): 0.0 for n in range(40)}
    second = {str(n): float(n < 20) for n in range(40)}
    apart = paired_test(first, second, {name: name for name in first})
    alike = paired_test(first, second, {name: str(int(name) // 10) for name in first})
    assert (apart.test, alike.test) == ("mcnemar", "sign-flip")
    assert apart.p < 1e-4 < 0.4 < alike.p  # two clusters differ, both the same way: 2 of 4 ways
    assert alike.detectable > apart.detectable


def test_holm_is_the_step_down_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_the_smallest_detectable_difference_is_detected_with_80_percent_power() -> None:
    rng = np.random.default_rng(10)
    names = [str(n) for n in range(400)]
    clusters = {name: name for name in names}
    zero = dict.fromkeys(names, 0.5)
    spread = paired_test(zero, dict(zip(names, rng.normal(0.5, 0.3, 400), strict=True)), clusters)
    shift, hits = spread.detectable / 100, 0
    for _ in range(200):
        other = dict(zip(names, rng.normal(0.5 + shift, 0.3, 400), strict=True))
        gaps = np.array([other[name] - zero[name] for name in names])
        hits += scipy_stats.ttest_1samp(gaps, 0).pvalue < 0.05
    assert 0.7 < hits / 200 < 0.9
    item = paired_test({"a": 0.0}, {"a": 1.0}, {"a": "a"})
    assert math.isinf(item.detectable)

"""What a benchmark is: one file of `benchmarks/`, found by its name, that exports BENCHMARK."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unidpo_mm.errors import Problem, RecipeError

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..discovery import load_module, module_names
from ..scorers.formats import Form
from ..stats.metrics import Metrics

if TYPE_CHECKING:
    from ._pair_sets import PairSet

__all__ = ["JUDGE_ERROR", "Benchmark", "Rules", "Verdicts", "benchmark_names", "load_benchmark"]

PACKAGE = __name__


JUDGE_ERROR = "judge_error"
"""How the note of a sample begins that a judge did not judge."""


@dataclass(frozen=True)
class Verdicts:
    """Whose verdicts a result is made of.

    Attributes:
        name: Of the judge.
        errors_left_out: Samples that it did not judge do not count; else they count as wrong.
    """

    name: str
    errors_left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How one scoring family scores a benchmark.

    Attributes:
        judge: (sample, response, options of the protocol) -> what it scores.
        judge_all: The same for many at once, where that is how it is done.
        metrics: Scored samples -> the metrics of section 5 of the documentation.
        headline: The metric that stands for the benchmark.
        headline_of: Scored samples -> that metric, where incomplete data do not have the usual one.
        missing_are_wrong: A sample without prediction counts, as wrong.
        libraries: What the scores depend on beside our code; results hold their versions.
        by_judge: A judge says what responses are worth; its name is a part of every metric's.
        once: Scored samples -> metrics that are no formula over sums, and have no interval.
        unit_scores: Scored samples -> score of each unit, for comparing two results; None where a
            sample is a unit.
    """

    metrics: Callable[[Sequence[ScoredSample]], Metrics]
    headline: str
    headline_of: Callable[[Sequence[ScoredSample]], str] | None = None
    judge: Callable[[Sample, str, Mapping[str, Any]], Judged] | None = None
    judge_all: (
        Callable[[Sequence[tuple[Sample, str]], Mapping[str, Any]], Sequence[Judged]] | None
    ) = None
    missing_are_wrong: bool = True
    once: Callable[[Sequence[ScoredSample]], dict[str, float]] | None = None
    by_judge: bool = False
    libraries: tuple[str, ...] = ()
    unit_scores: Callable[[Sequence[ScoredSample]], dict[str, float]] | None = None

    def measured(self, scored: Sequence[ScoredSample], judge: Verdicts | None = None) -> Metrics:
        """Returns the metrics of a result.

        Args:
            scored: All samples.
            judge: Who judged; samples that it did not judge are left out where it says so.
        """
        if judge is None:
            return self.metrics(scored)
        if judge.errors_left_out:
            scored = [one for one in scored if not one.note.startswith(JUDGE_ERROR)]
        return self.metrics(scored).renamed(f"[judge={judge.name}]")

    def judged(
        self, asked: Sequence[tuple[Sample, str]], options: Mapping[str, Any]
    ) -> Sequence[Judged]:
        """Returns what each response scores."""
        if self.judge_all is not None:
            return self.judge_all(asked, options)
        if self.judge is None:
            found = "these are pairs, which a model scores by their log-probabilities"
            raise RecipeError(Problem("--benchmark", found, "Use `unidpo-mm eval prefs`"))
        return [self.judge(sample, response, options) for sample, response in asked]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: That of its file.
        title: As people call it.
        read: File or folder, and whether pictures are wanted -> its samples.
        families: Scoring family -> its rules; the first is the default.
        expected: What a whole file holds: ``rows``, and other counts by name.
        files: What it is called where it is downloaded, as patterns, the usual one first.
        layouts: Which files and folders `read` takes, for messages.
        form: What answers should look like; None where any will do.
        bridge: The tool that judges its answers, where nothing here does.
        pairs: File and folder of pictures -> its pairs, where it is answered by `eval prefs`.
    """

    name: str
    title: str
    read: Callable[[Path, bool], DataSet]
    families: Mapping[str, Rules]
    expected: Mapping[str, int]
    files: tuple[str, ...]
    layouts: tuple[str, ...]
    form: Form | None = None
    bridge: str | None = None
    pairs: "Callable[[Path, Path | None], PairSet] | None" = None

    def rules(self, family: str) -> Rules:
        """Returns the rules of a scoring family.

        Raises:
            RecipeError: If the benchmark has none of that name.
        """
        if family not in self.families:
            found = f"{self.title} has no rules of the family '{family}'"
            remedy = f"Choose a protocol of {', '.join(self.families)}"
            raise RecipeError(Problem("--protocol", found, remedy))
        return self.families[family]


def benchmark_names() -> tuple[str, ...]:
    """Returns the names of all benchmarks, without importing any of them."""
    return module_names(PACKAGE)


@cache
def load_benchmark(name: str) -> Benchmark:
    """Returns the benchmark of one file.

    Raises:
        RecipeError: If no file has that name; lists what exists.
    """
    found: Benchmark = load_module(PACKAGE, name, "BENCHMARK", "--benchmark")
    return found

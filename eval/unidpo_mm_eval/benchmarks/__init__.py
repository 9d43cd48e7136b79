"""Benchmarks, one module each: how data are read, how responses are scored, and the metrics.

A new module that exports `BENCHMARK` is a new benchmark of that name; so is a user's file, by its
path. Modules that begin with an underscore are shared.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unidpo_mm.errors import Problem, RecipeError
from unidpo_mm.plugins import is_path, load, plugin_names, unknown_name

from ..data.dataset import Dataset
from ..data.samples import Grade, GradedSample, Sample
from ..data.tables import TABLE
from ..plugins import BENCHMARKS, SCORERS
from ..protocols import Protocol
from ..scorers.formats import ResponseFormat
from ..stats.metrics import Metrics, mean_score

ACCURACY = partial(mean_score, "accuracy")
JUDGE_ERROR = "judge_error"
"""Beginning of the note of a sample for which the judge gave no verdict."""
GradeFunction = Callable[[Sample, str, Mapping[str, Any]], Grade]
"""(sample, response, options of the protocol) -> its grade."""


@dataclass(frozen=True)
class JudgeInfo:
    """The LLM judge of a result."""

    name: str
    # Samples without a verdict are skipped; otherwise they count as wrong
    errors_left_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """The functions that compute grades and metrics from the responses to a benchmark."""

    # Graded samples -> the metrics listed in `docs/evaluation.md`
    metrics: Callable[[Sequence[GradedSample]], Metrics] = ACCURACY
    headline: str = "accuracy"  # Name of the metric that represents the benchmark
    # Graded samples -> that name, if incomplete data lack the usual metric
    headline_of: Callable[[Sequence[GradedSample]], str] | None = None
    grade: GradeFunction | None = None  # Grades one response
    # Grades many (sample, response) pairs at once, in place of `grade`
    grade_all: (
        Callable[[Sequence[tuple[Sample, str]], Mapping[str, Any]], Sequence[Grade]] | None
    ) = None
    missing_is_wrong: bool = True  # A sample without a prediction counts as wrong
    # Graded samples -> metrics that are not formulas over sums, without interval
    extra_metrics: Callable[[Sequence[GradedSample]], dict[str, float]] | None = None
    # Responses are scored by an LLM judge; its name becomes part of every metric
    uses_judge: bool = False
    # Distributions that affect the scores; results record their versions
    libraries: tuple[str, ...] = ()
    # Graded samples -> score per unit, for comparing two results; `None` if every sample is a unit
    unit_scores: Callable[[Sequence[GradedSample]], dict[str, float]] | None = None

    def measure(self, samples: Sequence[GradedSample], judge: JudgeInfo | None = None) -> Metrics:
        """Return the metrics of all samples; `judge` names their suffix and skips its errors."""
        if judge is None:
            return self.metrics(samples)
        if judge.errors_left_out:
            samples = [sample for sample in samples if not sample.note.startswith(JUDGE_ERROR)]
        return self.metrics(samples).renamed(f"[judge={judge.name}]")

    def grade_responses(
        self, responses: Sequence[tuple[Sample, str]], options: Mapping[str, Any]
    ) -> Sequence[Grade]:
        """Grade (sample, response) pairs."""
        if self.grade_all is not None:
            return self.grade_all(responses, options)
        if self.grade is None:
            text = "the scorer has neither grade nor grade_all"
            remedy = "Set one of them; for preference pairs, use `unidpo-mm eval prefs`"
            raise RecipeError(Problem("--benchmark or --scorer", text, remedy))
        grades = [self.grade(sample, response, options) for sample, response in responses]
        for grade in grades:
            if not isinstance(grade, Grade):
                text = f"{self.grade.__name__} returns {type(grade).__name__}, not a Grade"
                remedy = "Return Grade(score, answer)"
                raise RecipeError(Problem("--benchmark or --scorer", text, remedy))
        return grades


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark."""

    name: str  # Name of its module
    title: str  # Name in tables
    read: Callable[[Path, bool], Dataset]  # (file or directory, with_images) -> its samples
    scorers: Mapping[str, Scorer]  # Name -> scorer; the first is the default
    expected: Mapping[str, int]  # Size of the complete data: ``rows``, and other counts by name
    # Names of its files where they are published, as glob patterns, the most common one first
    files: tuple[str, ...]
    # Descriptions of the files and directories that `read` accepts
    layouts: tuple[str, ...] = (TABLE,)
    response_format: ResponseFormat | None = None  # The format that prompts ask for; `None` for any
    bridge: str | None = None  # Name of the tool that scores its responses, if nothing here does
    # (file, image directory) -> its preference pairs, a `benchmarks._pairs.PairSet`, for benchmarks
    # of `eval prefs`
    pairs: Callable[[Path, Path | None], Any] | None = None
    # The user's file that defines it; `None` for a benchmark that is found by its name
    file: str | None = None

    def scorer(self, name: str) -> Scorer:
        """Return one of its scorers by name, or another one by name or path."""
        if name not in self.scorers:
            if is_path(name) or name in plugin_names(SCORERS):
                scorer: Scorer = load(SCORERS, name)
                return scorer
            text = f"{self.title} has no scorer '{name}'"
            remedy = f"Choose a protocol that uses {', '.join(self.scorers)}"
            raise RecipeError(Problem("--protocol", text, remedy))
        return self.scorers[name]

    @property
    def missing_file(self) -> tuple[str, str]:
        """The problem, and its remedy, of a directory without the benchmark's files."""
        text = f"no file {' or '.join(self.files)} for {self.title}"
        return text, f"Save it there as {self.files[0]} ({'; '.join(self.layouts)})"


def benchmark_names() -> tuple[str, ...]:
    """Return the names of all benchmarks, without importing any of them."""
    return tuple(plugin_names(BENCHMARKS))


def load_benchmark(name: str) -> Benchmark:
    """Load a benchmark by its name, or by the path of a Python file."""
    benchmark: Benchmark = load(BENCHMARKS, name)
    if not is_path(name):
        return benchmark
    if benchmark.name in plugin_names(BENCHMARKS):
        text = f"'{benchmark.name}' is the name of another benchmark"
        raise RecipeError(Problem(name, text, "Change BENCHMARK.name"))
    return replace(benchmark, file=_absolute(name))


def with_scorer(protocol: Protocol, benchmark: Benchmark, name: str) -> Protocol:
    """Return a protocol with another scorer, which becomes part of its id.

    `name` is that of a scorer of the benchmark or of an installed package, or a path.
    """
    installed = plugin_names(SCORERS)
    if is_path(name):
        name = _absolute(name)
    elif name not in (*benchmark.scorers, *installed):
        choices = [*benchmark.scorers, *installed]
        raise RecipeError(unknown_name(SCORERS, name, SCORERS.where, choices))
    benchmark.scorer(name)  # refuse an invalid one before anything is computed
    label = Path(name).stem
    title = f"{protocol.title}, scorer {label}"
    return replace(protocol, id=f"{protocol.id}+{label}", title=title, scoring=name)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())

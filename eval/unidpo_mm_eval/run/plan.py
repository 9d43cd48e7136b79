"""The plan of a run: which models evaluate which benchmarks, checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.errors import DataError, Problem, RecipeError
from unidpo_mm.inference.checkpoint import Checkpoint, find_checkpoints

from ..benchmarks import Benchmark, load_benchmark, with_scorer
from ..data.dataset import Dataset, draw_clusters
from ..data.images import image_folder, image_reference
from ..protocols import Protocol, load_protocol
from ..suites import Suite, load_suite
from .data_check import data_path

PROBES = 20
"""Maximum number of images that are tried before a model is loaded."""


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark and its data, which are read when they are needed because images are large."""

    benchmark: Benchmark
    path: Path
    limit: int | None = None

    def read(self) -> Dataset:
        """Read the samples, with images."""
        data = self.benchmark.read(self.path, True)
        return draw_clusters(data, self.limit) if self.limit else data

    def check(self, images: Path | None) -> None:
        """Read everything and open an image; `images` is the directory of image files."""
        data = self.read()
        with_images = [(s.images[0], s.where) for s in data.samples if s.images]
        probes = with_images[:: max(len(with_images) // PROBES, 1)][:PROBES]
        folder, failures = image_folder(data.path, images), []
        for image, where in probes:
            try:
                image_reference(image, folder, where).open()
                return
            except DataError as error:
                failures.append(error.problems[0])
        if failures:
            first = failures[0].message
            text = f"none of {len(probes)} images can be opened; the first: {first}"
            remedy = "Use --images for the directory of the images, or fix them"
            raise DataError(Problem(failures[0].where, text, remedy))


@dataclass(frozen=True, kw_only=True)
class EvalPlan:
    """The checkpoints and benchmarks of an evaluation."""

    checkpoints: Sequence[Checkpoint]
    benchmarks: Sequence[BenchmarkSource]
    protocol: Protocol
    suite: Suite | None
    output: Path

    def path(self, name: str, benchmark: Benchmark) -> Path:
        """Return the file of a model's predictions on a benchmark."""
        return self.output / name / f"{benchmark.name}.jsonl"

    @classmethod
    def build(
        cls,
        checkpoints: Sequence[str] = (),
        *,
        data: Path,
        output: Path,
        benchmarks: Sequence[str] = (),
        suite: str | None = None,
        protocol: str | None = None,
        scorer: str | None = None,
        names: Sequence[str] = (),
        limit: int | None = None,
        allow_judge: bool = True,
        images: Path | None = None,
    ) -> "EvalPlan":
        """Build a plan and check everything that it needs; no model is loaded.

        Args:
            checkpoints: Directories of models, LoRA adapters or runs, or hub names; empty for
                served models.
            data: Data file of the only benchmark, or directory of the data files.
            output: Directory for predictions and results.
            benchmarks: Names of benchmarks; alternative to `suite`.
            suite: Name of a suite of benchmarks.
            protocol: Prompts and rules; `None` for those of the suite or benchmark.
            scorer: Name of a scorer, or a Python file; `None` for that of the protocol.
            names: One name per checkpoint; empty for the names of their directories.
            limit: Maximum number of clusters; `None` for the limit of the suite, or all.
            allow_judge: Whether scorers may ask a judge.
            images: Directory of image files; `None` for the directory of the data.

        Raises:
            RecipeError: If benchmarks, data or checkpoints are missing or do not fit together.
        """
        if bool(benchmarks) == (suite is not None):
            text = "expected either --benchmark or --suite"
            raise RecipeError(Problem("eval run", text, "Use one of them"))
        members = None if suite is None else load_suite(suite)
        loaded = [load_benchmark(name) for name in (members.benchmarks if members else benchmarks)]
        default = members.protocol if members else next(iter(loaded[0].scorers))
        rules = load_protocol(protocol or default)
        if scorer is not None and members is not None:
            text = "the benchmarks of a suite have the scorers of its protocol"
            raise RecipeError(Problem("--scorer", text, "Use --benchmark"))
        if scorer is not None:
            rules, *_ = [with_scorer(rules, benchmark, scorer) for benchmark in loaded]
        limit = limit if limit is not None or members is None else members.limit
        problems: list[Problem] = []
        sources = []
        for benchmark in loaded:
            _check_kind(benchmark, rules, allow_judge=allow_judge)
            try:
                place = data_path(benchmark, data, alone=len(loaded) == 1)
                source = BenchmarkSource(benchmark, place, limit)
                source.check(images)
                sources.append(source)
            except DataError as error:
                problems += error.problems
        if problems and members is not None:
            available = ", ".join(source.benchmark.name for source in sources) or "none"
            text = f"{len(sources)} of its {len(loaded)} benchmarks are available: {available}"
            remedy = "Add the others, or use --benchmark for the available ones"
            problems.append(Problem(f"suite '{members.id}'", text, remedy))
        if problems:
            raise DataError(problems)
        return cls(
            checkpoints=find_checkpoints(checkpoints, names),
            benchmarks=sources,
            protocol=rules,
            suite=members,
            output=output,
        )


def _check_kind(benchmark: Benchmark, protocol: Protocol, *, allow_judge: bool) -> None:
    """Refuse preference pairs, and if required benchmarks that need a judge."""
    text, remedy = "", "Use `unidpo-mm eval prefs`"
    if benchmark.pairs is not None:
        text = f"{benchmark.title} consists of preference pairs, which are scored by log-probs"
    elif benchmark.scorer(protocol.scoring).uses_judge and not allow_judge:
        text = f"{benchmark.title} is scored by a judge"
        remedy = "Use `eval run`, then `eval score` with --judge"
    if text:
        raise RecipeError(Problem("--benchmark", text, remedy))

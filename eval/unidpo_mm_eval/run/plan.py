"""Which checkpoints answer which benchmarks; all is looked for before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.errors import DataError, Problem, RecipeError

from ..benchmarks import Benchmark, load_benchmark
from ..data.dataset import DataSet
from ..data.images import picture_folder, picture_reference
from ..data.subset import subset as part_of
from ..models.checkpoint import Checkpoint, find_checkpoints
from ..protocols import Protocol, load_protocol
from ..suites import Suite, load_suite
from .data_check import place

__all__ = ["Plan", "Subject"]

TRIED = 20
"""Pictures that are looked at before a model is loaded."""


@dataclass(frozen=True)
class Subject:
    """A benchmark and its data, which are read when they are asked about: pictures are many.

    Attributes:
        benchmark: The benchmark.
        path: Its file or folder.
        clusters: How many of its clusters are asked about; None for all.
    """

    benchmark: Benchmark
    path: Path
    clusters: int | None = None

    def read(self, *, pictures: bool = True) -> DataSet:
        """Returns the samples.

        Raises:
            DataError: With every problem of every row.
        """
        data = self.benchmark.read(self.path, pictures)
        return part_of(data, self.clusters) if self.clusters else data

    def check(self, images: Path | None) -> None:
        """Reads everything and opens some pictures.

        Args:
            images: Folder of pictures that the data name.

        Raises:
            DataError: With every problem of every row, or if not one of the pictures is there.
        """
        data = self.read()
        shown = [(one.pictures[0], one.where) for one in data.samples if one.pictures]
        tried = shown[:: max(len(shown) // TRIED, 1)][:TRIED]
        folder, failed = picture_folder(data.path, images), []
        for picture, where in tried:
            try:
                picture_reference(picture, folder, where).open()
                return
            except DataError as error:
                failed.append(error.problems[0])
        if failed:
            found = f"of {len(tried)} pictures not one can be opened; the first: {failed[0].found}"
            remedy = "Name the folder of the pictures by --images, or repair them"
            raise DataError(Problem(failed[0].where, found, remedy))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which checkpoints answer which benchmarks.

    Attributes:
        checkpoints: In order; the others are compared with the first.
        benchmarks: What is asked, and where its data are.
        protocol: Prompts and rules of all.
        suite: What the benchmarks are, where they are a suite.
        data, out: Where data are and results go.
    """

    checkpoints: Sequence[Checkpoint]
    benchmarks: Sequence[Subject]
    protocol: Protocol
    suite: Suite | None
    data: Path
    out: Path

    def path(self, name: str, benchmark: Benchmark) -> Path:
        """Returns the file of a model's predictions on a benchmark."""
        return self.out / name / f"{benchmark.name}.jsonl"

    @classmethod
    def of(
        cls,
        checkpoints: Sequence[str],
        *,
        data: Path,
        out: Path,
        benchmarks: Sequence[str],
        suite: str | None,
        protocol: str | None,
        names: Sequence[str],
        subset: int | None,
        judged: bool = True,
        images: Path | None = None,
    ) -> "Plan":
        """Returns a plan of the words of a command line; everything is looked for at once.

        Args:
            checkpoints: Folders or hub names.
            data: A file, or the folder of a suite.
            out: Where results go.
            benchmarks: Names; empty for those of a suite.
            suite: Its name; None for the benchmarks named.
            protocol: Its name; None for the usual one.
            names: What checkpoints are called; empty for their folders' names.
            subset: Clusters that are asked about; None for the suite's number, or all.
            judged: Benchmarks that need a judge may be among them.
            images: Folder of pictures that the data name; None for that of the data.

        Raises:
            RecipeError: If options contradict each other.
            DataError: If data are not there or cannot be read; with all that is wrong of all.
        """
        if bool(benchmarks) == (suite is not None):
            found = "it has to know what to ask"
            raise RecipeError(Problem("eval run", found, "Name --benchmark or --suite"))
        whole = None if suite is None else load_suite(suite)
        wanted = [load_benchmark(name) for name in (whole.benchmarks if whole else benchmarks)]
        usual = whole.protocol if whole else next(iter(wanted[0].families))
        rules = load_protocol(protocol or usual)
        clusters = subset if subset is not None or whole is None else whole.subset
        problems: list[Problem] = []
        subjects = []
        for one in wanted:
            refuse_pairs(one)
            if one.rules(rules.scoring).by_judge and not judged:
                found = f"{one.title} is scored by a judge"
                raise RecipeError(Problem("--benchmark", found, "Ask it by `eval run`, then score"))
            try:
                subject = Subject(one, _place(one, data, alone=len(wanted) == 1), clusters)
                subject.check(images)  # a mistake shows before a model is loaded
                subjects.append(subject)
            except DataError as error:
                problems += error.problems
        if problems and whole is not None:
            there = [subject.benchmark.name for subject in subjects]
            found = f"of its {len(wanted)} benchmarks {len(there)} are there: {', '.join(there)}"
            remedy = "Put the others there, or ask those alone, each by --benchmark"
            problems.append(Problem(f"suite '{whole.id}'", found, remedy))
        if problems:
            raise DataError(problems)
        return cls(
            checkpoints=find_checkpoints(checkpoints, names),
            benchmarks=subjects,
            protocol=rules,
            suite=whole,
            data=data,
            out=out,
        )


def refuse_pairs(benchmark: Benchmark) -> None:
    """Refuses sets of pairs, which are not asked but scored.

    Raises:
        RecipeError: If it is one.
    """
    if benchmark.pairs is not None:
        found = f"{benchmark.title}: pairs, which a model scores by their log-probabilities"
        raise RecipeError(Problem("--benchmark", found, "Use `unidpo-mm eval prefs`"))


def _place(benchmark: Benchmark, path: Path, *, alone: bool) -> Path:
    """Returns where the data of a benchmark are: the file named, or its usual file in a folder.

    A folder that holds none of that name is taken for the benchmark's own, where it can be one and
    no other benchmark's data are looked for in it.
    """
    found = place(benchmark, path) if path.is_dir() else path
    if found is not None and found.exists():
        return found
    if alone and path.is_dir() and any("folder" in layout for layout in benchmark.layouts):
        return path
    remedy = f"Put it there as {benchmark.files[0]} ({'; '.join(benchmark.layouts)})"
    text = f"there is no file {', '.join(benchmark.files)} of {benchmark.title}"
    raise DataError(Problem(str(path), text, remedy))

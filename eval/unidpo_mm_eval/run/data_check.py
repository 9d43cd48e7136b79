"""What of a benchmark's data is there: which file, in which layout, whole or not, its hash."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import Benchmark
from ..data.dataset import DataSet
from ..data.images import picture_folder, picture_reference
from ..data.samples import Picture

__all__ = ["Found", "check_folder", "check_one", "labels", "place"]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of one benchmark.

    Attributes:
        benchmark: The benchmark.
        path: Its file or folder; None where there is none.
        data: What was read; None where it cannot be.
        problems: What is wrong.
        notes: What is odd.
    """

    benchmark: Benchmark
    path: Path | None
    data: DataSet | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = field(default=())


def check_one(
    benchmark: Benchmark, path: Path, *, images: Path | None = None, opened: bool = True
) -> Found:
    """Returns what a file or folder holds of a benchmark.

    Args:
        benchmark: The benchmark.
        path: The file or folder.
        images: Folder of the pictures, where the data name files; None for that of the data.
        opened: Every picture is opened.
    """
    if not path.exists():
        remedy = f"Name its data: {'; '.join(benchmark.layouts)}"
        problem = Problem(str(path), "it does not exist", remedy)
        return Found(benchmark=benchmark, path=None, problems=(problem,))
    try:
        data = benchmark.read(path, True)
    except DataError as error:
        return Found(benchmark=benchmark, path=path, problems=error.problems)
    broken, notes = _pictures(data, images) if opened else ([], [])
    return Found(
        benchmark=benchmark,
        path=path,
        data=data,
        problems=tuple(broken),
        notes=(*data.notes, *_expected(benchmark, data), *notes),
    )


def check_folder(
    benchmarks: Sequence[Benchmark],
    folder: Path,
    *,
    images: Path | None = None,
    opened: bool = True,
) -> list[Found]:
    """Returns what a folder holds of several benchmarks, by the usual names of their files."""
    found = []
    for benchmark in benchmarks:
        path = place(benchmark, folder)
        if path is not None:
            found.append(check_one(benchmark, path, images=images, opened=opened))
            continue
        remedy = f"Put it there as {benchmark.files[0]} ({'; '.join(benchmark.layouts)})"
        names = ", ".join(benchmark.files)
        problem = Problem(str(folder), f"there is no file {names} of {benchmark.title}", remedy)
        found.append(Found(benchmark=benchmark, path=None, problems=(problem,)))
    return found


def place(benchmark: Benchmark, folder: Path) -> Path | None:
    """Returns the file of a benchmark; where a pattern finds several, the folder of them."""
    for name in benchmark.files:
        found = sorted(folder.rglob(name))
        if len(found) > 1 and "*" in name:
            return found[0].parent
        if found:
            return found[0]
    return None


def _pictures(data: DataSet, images: Path | None) -> tuple[list[Problem], list[str]]:
    """Opens every picture once; returns those that cannot be, and what else is to be said."""
    folder = picture_folder(data.path, images)
    first: dict[str, tuple[Picture, str]] = {}
    for sample in data.samples:
        for picture in sample.pictures:
            first.setdefault(picture.key, (picture, sample.where))

    def problem(one: tuple[Picture, str]) -> Problem | None:
        picture, where = one
        try:
            picture_reference(picture, folder, where).open()
        except DataError as error:
            return error.problems[0]
        return None

    if not first:
        return [], ["no row has a picture"]
    with ThreadPoolExecutor() as threads:
        broken = [one for one in threads.map(problem, first.values()) if one is not None]
    named = all(isinstance(one.content, str | Path) for one, _ in first.values())
    if len(broken) == len(first) and named and all("does not exist" in str(one) for one in broken):
        return [], [f"none of the {len(first):,} pictures is in {folder}; --images names theirs"]
    return broken, []


def _expected(benchmark: Benchmark, data: DataSet) -> list[str]:
    """Returns where the data are not as many as a whole file has."""
    rows, wanted = len(data.samples), benchmark.expected
    sizes = [size for name, size in wanted.items() if name.startswith("rows")]
    told = []
    if sizes and rows not in sizes:
        told.append(f"{rows} rows, and a whole file has {' or '.join(map(str, sizes))}")
    if "questions" in wanted:
        questions = len({sample.unit for sample in data.samples})
        if questions != wanted["questions"]:
            told.append(f"{questions} questions, and a whole file has {wanted['questions']}")
    return told


def labels(data: DataSet) -> dict[str, Counter[str]]:
    """Returns how many samples have each value of each label."""
    found: dict[str, Counter[str]] = {}
    for sample in data.samples:
        for name, value in sample.labels.items():
            found.setdefault(name, Counter())[value] += 1
    return found

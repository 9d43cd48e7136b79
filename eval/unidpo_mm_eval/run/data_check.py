"""Check of a benchmark's data: which files exist, their format, completeness and hash."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..data.images import image_folder, image_reference, video_reference
from ..data.samples import Image, Video


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """The state of one benchmark's data."""

    benchmark: Benchmark
    path: Path | None
    data: Dataset | None = None
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    def labels(self) -> dict[str, Counter[str]]:
        """Return label -> value -> number of samples."""
        counts: dict[str, Counter[str]] = {}
        for sample in self.data.samples if self.data else ():
            for name, value in sample.labels.items():
                counts.setdefault(name, Counter())[value] += 1
        return counts


def check_file(
    benchmark: Benchmark, path: Path, *, images: Path | None = None, open_images: bool = True
) -> DataReport:
    """Check the file or directory of a benchmark."""
    if not path.exists():
        remedy = f"Use its data: {'; '.join(benchmark.layouts)}"
        problem = Problem(str(path), "the file does not exist", remedy)
        return DataReport(benchmark=benchmark, path=None, problems=(problem,))
    try:
        data = benchmark.read(path, True)
    except DataError as error:
        return DataReport(benchmark=benchmark, path=path, problems=error.problems)
    problems, notes = _check_images(data, images) if open_images else ([], [])
    return DataReport(
        benchmark=benchmark,
        path=path,
        data=data,
        problems=tuple(problems),
        notes=(*data.notes, *_size_notes(benchmark, data), *notes),
    )


def check_folder(
    benchmarks: Sequence[Benchmark],
    folder: Path,
    *,
    images: Path | None = None,
    open_images: bool = True,
) -> list[DataReport]:
    """Check a directory with the data of several benchmarks under their usual file names."""
    reports = []
    for benchmark in benchmarks:
        path = find_data(benchmark, folder)
        if path is not None:
            reports.append(check_file(benchmark, path, images=images, open_images=open_images))
        else:
            problem = Problem(str(folder), *benchmark.missing_file)
            reports.append(DataReport(benchmark=benchmark, path=None, problems=(problem,)))
    return reports


def find_data(benchmark: Benchmark, folder: Path) -> Path | None:
    """Return the file of a benchmark, or the directory if a pattern matches several files."""
    for name in benchmark.files:
        matches = sorted(folder.rglob(name))
        if len(matches) > 1 and "*" in name:
            return matches[0].parent
        if matches:
            return matches[0]
    return None


def data_path(benchmark: Benchmark, path: Path, *, alone: bool) -> Path:
    """Return the file of a benchmark: the path itself, or its usual file in a directory.

    A directory without such a file is the benchmark's own directory if it can have one and there is
    no other benchmark.
    """
    place = find_data(benchmark, path) if path.is_dir() else path
    if place is not None and place.exists():
        return place
    if alone and path.is_dir() and any("directory" in layout for layout in benchmark.layouts):
        return path
    raise DataError(Problem(str(path), *benchmark.missing_file))


def _check_images(data: Dataset, images: Path | None) -> tuple[list[Problem], list[str]]:
    """Open every image and video once; return problems and notes."""
    from unidpo_mm.records import FrameSampling  # imports torch

    folder = image_folder(data.path, images)
    by_key: dict[str, tuple[Image | Video, str]] = {}
    for sample in data.samples:
        media_of_sample: list[Image | Video] = [*sample.images, *sample.videos]
        for media in media_of_sample:
            by_key.setdefault(media.key, (media, sample.where))

    def problem(media_and_place: tuple[Image | Video, str]) -> Problem | None:
        media, where = media_and_place
        try:
            if isinstance(media, Video):
                video_reference(media, folder, where).sample(FrameSampling(max_frames=2))
            else:
                image_reference(media, folder, where).open()
        except DataError as error:
            return error.problems[0]
        return None

    if not by_key:
        return [], ["no row has an image"]
    with ThreadPoolExecutor() as threads:
        problems = [p for p in threads.map(problem, by_key.values()) if p is not None]
    by_name = all(isinstance(media.content, str | Path) for media, _ in by_key.values())
    absent = by_name and all("does not exist" in str(problem) for problem in problems)
    if len(problems) == len(by_key) and absent:
        note = (
            f"none of the {len(by_key):,} images is in {folder}; use --images for their directory"
        )
        return [], [note]
    return problems, []


def _size_notes(benchmark: Benchmark, data: Dataset) -> list[str]:
    """Return notes on data that are not of the expected size."""
    rows, expected = len(data.samples), benchmark.expected
    sizes = [size for name, size in expected.items() if name.startswith("rows")]
    notes = []
    if sizes and rows not in sizes:
        notes.append(f"{rows} rows; the complete file has {' or '.join(map(str, sizes))}")
    questions = len({sample.unit for sample in data.samples})
    if questions != expected.get("questions", questions):
        notes.append(f"{questions} questions; the complete file has {expected['questions']}")
    return notes

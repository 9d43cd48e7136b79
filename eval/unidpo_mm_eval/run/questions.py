"""Questions of benchmarks and held-out files, to keep them out of training data.

    index = leak_index(["mmstar", "held_out.jsonl"], data=Path("benchmarks"))

`unidpo_mm.data.leaks` compares prompts with them.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.code_digest import code_digest
from unidpo_mm.data.leak_index import LeakIndex
from unidpo_mm.data.load import ReadOptions, load_rows
from unidpo_mm.data.question_cache import cached_hashes, files_digest
from unidpo_mm.data.questions import (
    Question,
    QuestionHashes,
    TextRule,
    joined_hashes,
    row_question,
)
from unidpo_mm.errors import DataError, Problem, RecipeError, counted
from unidpo_mm.plugins import suggestion

from ..benchmarks import Benchmark, benchmark_names, load_benchmark
from ..data.images import image_folder, image_reference, video_reference
from ..data.samples import Sample
from .data_check import data_path

logger = logging.getLogger(__name__)


def leak_index(
    sources: Sequence[str],
    *,
    data: Path | None = None,
    images: Path | None = None,
    text: TextRule = "exact",
    where: str = "keep_out",
) -> LeakIndex:
    """Return an index of the questions of benchmarks and files, which are hashed once.

    Args:
        sources: Names of benchmarks, Python files that define one, and files of preference data.
        data: Directory with the data of the benchmarks under their usual names, or the data of the
            only benchmark.
        images: Directory of image files of the benchmarks; `None` for those of their data.
        text: How texts are compared.
        where: The setting, for messages.

    Raises:
        RecipeError: If a source is neither a benchmark nor a file.
        DataError: If data are missing or cannot be read.
    """
    names = benchmark_names()
    benchmarks = [name for name in sources if name in names or name.endswith(".py")]
    files = [name for name in sources if name not in benchmarks]
    if unknown := [name for name in files if not Path(name).expanduser().exists()]:
        raise RecipeError(_unknown_source(name, where) for name in unknown)
    problems: list[Problem] = []
    parts: list[QuestionHashes] = []
    for source in sources:
        try:
            if source in files:
                parts.append(_file_hashes(source, text))
            else:
                alone = len(benchmarks) == 1
                parts.append(_benchmark_hashes(source, data, images, text, alone=alone))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    for source, part in zip(sources, parts, strict=True):
        if part.unreadable:
            count = counted(len(part.unreadable), "image or video", "images or videos")
            message = "%s: %s cannot be compared with those of prompts, for example %s"
            logger.warning(message, source, count, part.unreadable[0])
    return LeakIndex(joined_hashes(parts))


def benchmark_questions(
    benchmark: Benchmark, path: Path, images: Path | None = None
) -> Iterator[Question]:
    """Yield the questions of a benchmark, with the hint in front as well if there is one.

    Args:
        benchmark: The benchmark.
        path: Its file or directory.
        images: Directory of image files; `None` for that of the data.

    Raises:
        DataError: If the data cannot be read.
    """
    data = benchmark.read(path, True)
    folder = image_folder(data.path, images)
    problems: list[Problem] = []
    for sample in data.samples:
        try:
            yield from _questions(sample, folder)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)


def _questions(sample: Sample, folder: Path) -> list[Question]:
    hints = ["", f"{sample.hint}\n"] if sample.hint else [""]
    images = tuple(image_reference(image, folder, sample.where) for image in sample.images)
    videos = tuple(video_reference(video, folder, sample.where) for video in sample.videos)
    return [
        Question(
            where=sample.where,
            text=f"{hint}{sample.question}",
            options=tuple(sample.options.values()),
            images=images,
            videos=videos,
        )
        for hint in hints
    ]


def _benchmark_hashes(
    name: str, data: Path | None, images: Path | None, text: TextRule, *, alone: bool
) -> QuestionHashes:
    benchmark = load_benchmark(name)
    if data is None:
        remedy = "Set the directory of the data of benchmarks"
        raise DataError(Problem(name, "the location of its data is not set", remedy))
    path = data_path(benchmark, data, alone=alone)
    files = [path, *([Path(benchmark.file)] if benchmark.file else [])]
    settings = [name, None if images is None else str(images), code_digest(Benchmark)]
    return cached_hashes(
        files_digest(files, settings), lambda: benchmark_questions(benchmark, path, images), text
    )


def _file_hashes(name: str, text: TextRule) -> QuestionHashes:
    path = Path(name).expanduser()
    source = SourceOptions(path=str(path), images_outside=True)

    def questions() -> Iterator[Question]:
        return map(row_question, load_rows([source], ReadOptions(incomplete=True)))

    return cached_hashes(files_digest([path]), questions, text)


def _unknown_source(name: str, where: str) -> Problem:
    message = f"'{name}' is neither a benchmark nor a file{suggestion(name, benchmark_names())}"
    remedy = "Use the path of a file, or a name that `unidpo-mm eval list` prints"
    return Problem(where, message, remedy)

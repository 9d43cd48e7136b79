"""MME: two yes-or-no questions per image, in fourteen subtasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import Dataset, build_dataset
from ..data.samples import GradedSample, Image, Sample
from ..data.tables import TABLE, TableRow, not_utf8, read_table
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import YesNo, first_letters_yes_no, yes_or_no
from ..stats.metrics import Formula, Metrics, share
from . import Benchmark, Scorer
from ._yes_no import grade_yes_no

PERCEPTION = "OCR artwork celebrity color count existence landmark position posters scene".split()
COGNITION = "code_reasoning commonsense_reasoning numerical_calculation text_translation".split()
SUBTASKS = (*PERCEPTION, *COGNITION)
ENDINGS = (".jpg", ".png", ".jpeg")
QUESTIONS = 2
"""Number of questions per image: the score counts images with both correct."""


def from_table(row: TableRow) -> Sample:
    """Build the question of a row; equal file names in two subtasks are different images."""
    subtask = row.choose("category", SUBTASKS)
    return row.sample(
        answers=(row.yes_or_no(),),
        labels={"category": subtask},
        cluster=f"{subtask}/{row.get('image_path') or row.image_key}",
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read a table, or the official directories."""
    if path.is_dir():
        data = _read_folders(path)
    else:
        columns = ("question", "answer", "category")
        data = read_table(path, from_table, columns, with_images=with_images)
    counts = Counter(sample.cluster for sample in data.samples)
    problems = [
        Problem(
            sample.where,
            f"the image '{sample.cluster}' has {counts[sample.cluster]} questions",
            f"Use exactly {QUESTIONS} questions per image of a subtask",
        )
        for sample in {sample.cluster: sample for sample in data.samples}.values()
        if counts[sample.cluster] != QUESTIONS
    ]
    if problems:
        raise DataError(problems)
    return data


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the scores: per subtask 100 for questions and 100 for images, summed up."""
    result = Metrics()
    correct: Counter[str] = Counter()
    for sample in samples:
        correct[sample.cluster] += sample.score == 1.0
    for sample in samples:
        cluster, subtask = sample.cluster, sample.labels["category"]
        result.sums.add(cluster, f"questions/{subtask}")
        result.sums.add(cluster, f"right/{subtask}", sample.score)
        # both questions add their half of the image
        result.sums.add(cluster, f"images/{subtask}", 1 / QUESTIONS)
        both = correct[cluster] == QUESTIONS
        result.sums.add(cluster, f"both/{subtask}", both / QUESTIONS)
    subtasks = sorted({sample.labels["category"] for sample in samples})
    score = {subtask: _score(subtask) for subtask in subtasks}
    result.formulas = {f"score/{subtask}": formula for subtask, formula in score.items()}
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        result.formulas[name] = _total([score[name] for name in subtasks if name in members])
    result.formulas["total"] = _total(list(score.values()))
    result.formulas["subtasks_present"] = _total([], len(subtasks))
    return result


def _score(subtask: str) -> Formula:
    questions = share(f"right/{subtask}", f"questions/{subtask}")
    images = share(f"both/{subtask}", f"images/{subtask}")
    return lambda totals: questions(totals) + images(totals)


def _total(formulas: Sequence[Formula], constant: float = 0.0) -> Formula:
    return lambda totals: sum(
        (formula(totals) for formula in formulas), start=constant + 0.0 * totals.values[..., 0]
    )


def _read_folders(path: Path) -> Dataset:
    """Read <subtask>/*.txt next to the images, or <subtask>/questions_answers_YN/*.txt."""
    samples, files = [], []
    problems: list[Problem] = []
    for subtask in SUBTASKS:
        folder = path / subtask
        texts = sorted(folder.glob("*.txt")) or sorted(folder.glob("questions_answers_YN/*.txt"))
        files += texts
        for text in texts:
            samples += _read_text(text, subtask, problems)
    if not files:
        remedy = f"Use the directory that contains {', '.join(PERCEPTION[:3])} and the others"
        raise DataError(Problem(str(path), "no directory of a subtask", remedy))
    return build_dataset(path, samples, files=files, problems=problems)


def _read_text(text: Path, subtask: str, problems: list[Problem]) -> list[Sample]:
    """Read the questions about one image."""
    try:
        lines = text.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        problems.append(not_utf8(text, error))
        return []
    folders = (text.parent, text.parent.parent / "images")
    places = (folder / f"{text.stem}{ending}" for folder in folders for ending in ENDINGS)
    image = next((place for place in places if place.is_file()), None)
    name = f"{subtask}/{text.stem}"
    samples = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{text} row {number}"
        question, tab, answer = line.rpartition("\t")
        answer = answer.strip().capitalize()
        if not tab or answer not in ("Yes", "No"):
            remedy = "Write the question, a tab, and Yes or No"
            problems.append(Problem(where, f"got '{line[-60:]}'", remedy))
            continue
        samples.append(
            Sample(
                id=f"{name}/{number}",
                where=where,
                question=question,
                answers=(answer,),
                labels={"category": subtask},
                cluster=name,
                images=(Image(name, image),) if image else (),
            )
        )
    return samples


def _scorer(extract: Callable[[str], YesNo | None]) -> Scorer:
    return Scorer(grade=grade_yes_no(extract), metrics=metrics, headline="total")


BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    read=read,
    scorers={
        "vlmevalkit": _scorer(yes_or_no),
        "lmms": _scorer(first_letters_yes_no),
        "clean": _scorer(clean_yes_no),
    },
    expected={"rows": 2374, "subtasks": 14},
    files=("MME.tsv", "MME_Benchmark*"),
    layouts=(TABLE, "a directory with one directory per subtask"),
    response_format=YES_NO,
)

"""MME: two yes-or-no questions a picture, in fourteen subtasks."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import DataSet, data_set
from ..data.samples import Picture, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import YesNo, first_letters_yes_no, yes_or_no
from ..stats.metrics import Formula, Metrics, Totals, share
from . import Benchmark, Rules
from ._yes_no import judge_yes_no

__all__ = ["BENCHMARK"]

PERCEPTION = "OCR artwork celebrity color count existence landmark position posters scene".split()
COGNITION = "code_reasoning commonsense_reasoning numerical_calculation text_translation".split()
ENDINGS = (".jpg", ".png", ".jpeg")
QUESTIONS = 2
"""Of each picture: the score counts pictures with both of them right."""


def from_table(row: TsvRow) -> Sample:
    """Returns the question of a row; equal file names in two subtasks are two pictures."""
    subtask = row.need("category")
    if subtask and subtask not in (*PERCEPTION, *COGNITION):
        known = ", ".join((*PERCEPTION, *COGNITION))
        row.note("category", f"found '{subtask[:60]}'", f"Give one of {known}")
    picture = row.get("image_path") or row.picture
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=(row.yes_or_no(),),
        labels={"category": subtask},
        cluster=f"{subtask}/{picture}",
        pictures=row.pictures,
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table, or of the official folders.

    Raises:
        DataError: Also for every picture that has not exactly two questions.
    """
    if path.is_dir():
        found = _folders(path)
    else:
        needs = ("question", "answer", "category")
        found = read_tsv(path, from_table, needs=needs, pictures=pictures)
    asked = Counter(sample.cluster for sample in found.samples)
    problems = [
        Problem(
            sample.where,
            f"the picture '{sample.cluster}' has {asked[sample.cluster]} questions",
            f"Give exactly {QUESTIONS} questions for each picture of a subtask",
        )
        for sample in {sample.cluster: sample for sample in found.samples}.values()
        if asked[sample.cluster] != QUESTIONS
    ]
    if problems:
        raise DataError(problems)
    return found


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the scores: of a subtask 100 for questions and 100 for pictures, summed up."""
    found = Metrics()
    right: Counter[str] = Counter()
    for one in scored:
        right[one.cluster] += one.score == 1.0
    for one in scored:
        subtask = one.labels["category"]
        found.sums.add(one.cluster, f"questions/{subtask}")
        found.sums.add(one.cluster, f"right/{subtask}", one.score)
        # both questions of a picture say so: each of them for a half
        found.sums.add(one.cluster, f"pictures/{subtask}", 1 / QUESTIONS)
        both = right[one.cluster] == QUESTIONS
        found.sums.add(one.cluster, f"both/{subtask}", both / QUESTIONS)
    subtasks = sorted({one.labels["category"] for one in scored})
    score = {subtask: _score(subtask) for subtask in subtasks}
    found.formulas = {f"score/{subtask}": formula for subtask, formula in score.items()}
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        found.formulas[name] = _total([score[one] for one in subtasks if one in members])
    found.formulas["total"] = _total(list(score.values()))
    found.formulas["subtasks_present"] = _constant(len(subtasks))
    return found


def _score(subtask: str) -> Formula:
    questions = share(f"right/{subtask}", f"questions/{subtask}")
    pictures = share(f"both/{subtask}", f"pictures/{subtask}")
    return lambda totals: questions(totals) + pictures(totals)


def _total(formulas: Sequence[Formula]) -> Formula:
    def total(totals: Totals) -> float:
        return sum((formula(totals) for formula in formulas), start=0.0 * totals.values[..., 0])

    return total


def _constant(value: float) -> Formula:
    return lambda totals: value + 0.0 * totals.values[..., 0]


def _folders(path: Path) -> DataSet:
    """Reads <subtask>/*.txt beside the pictures, or <subtask>/questions_answers_YN/*.txt."""
    samples, files = [], []
    problems: list[Problem] = []
    for subtask in (*PERCEPTION, *COGNITION):
        folder = path / subtask
        texts = sorted(folder.glob("*.txt")) or sorted(folder.glob("questions_answers_YN/*.txt"))
        files += texts
        for text in texts:
            picture = _picture_of(text)
            for number, line in enumerate(_lines(text, problems), start=1):
                if not line.strip():
                    continue
                where = f"{text} row {number}"
                question, tab, answer = line.rpartition("\t")
                answer = answer.strip().capitalize()
                if not tab or answer not in ("Yes", "No"):
                    remedy = "Write the question, a tab, and Yes or No"
                    problems.append(Problem(where, f"found '{line[-60:]}'", remedy))
                    continue
                name = f"{subtask}/{text.stem}"
                own = (Picture(name, picture),) if picture else ()
                samples.append(
                    Sample(
                        id=f"{name}/{number}",
                        where=where,
                        question=question,
                        answers=(answer,),
                        labels={"category": subtask},
                        cluster=name,
                        pictures=own,
                    )
                )
    if not files:
        found = "it holds none of the folders of the subtasks"
        remedy = f"Name the folder that holds {', '.join(PERCEPTION[:3])} and the others"
        raise DataError(Problem(str(path), found, remedy))
    return data_set(path, samples, files=files, problems=problems)


def _lines(text: Path, problems: list[Problem]) -> list[str]:
    try:
        return text.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        found = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        problems.append(Problem(str(text), found, "Write the file as UTF-8"))
        return []


def _picture_of(text: Path) -> Path | None:
    folders = (text.parent, text.parent.parent / "images")
    found = (folder / f"{text.stem}{ending}" for folder in folders for ending in ENDINGS)
    return next((path for path in found if path.is_file()), None)


def _rules(extract: Callable[[str], YesNo | None]) -> Rules:
    return Rules(judge=judge_yes_no(extract), metrics=metrics, headline="total")


BENCHMARK = Benchmark(
    name="mme",
    title="MME",
    read=read,
    families={
        "vlmevalkit": _rules(yes_or_no),
        "lmms": _rules(first_letters_yes_no),
        "clean": _rules(clean_yes_no),
    },
    expected={"rows": 2374, "subtasks": 14},
    files=("MME.tsv", "MME_Benchmark*"),
    layouts=(TABLE, "a folder with one folder for each subtask"),
    form=YES_NO,
)

"""POPE: is there such an object in the picture? Random, popular and adversarial questions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Picture, Sample, ScoredSample
from ..data.tables import TsvRow, read_tsv
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import YesNo, exact_yes_no, first_sentence_yes_no, yes_or_no
from ..stats.metrics import Array, Formula, Metrics, Totals, divided, ratio, share
from . import Benchmark, Rules
from ._yes_no import judge_yes_no

__all__ = ["BENCHMARK"]

SPLITS = ("random", "popular", "adversarial")
COUNTED = ("accuracy", "precision", "recall", "f1", "yes_ratio")


def from_table(row: TsvRow) -> Sample:
    """Returns the question of a row of VLMEvalKit's table, which may be one of several splits."""
    labels = {"splits": row.need("category")}
    if labels["splits"] and not splits(labels):
        row.note("category", f"found '{labels['splits'][:60]}'", f"Give {', '.join(SPLITS)}")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        answers=(row.yes_or_no(),),
        labels=labels,
        cluster=row.picture,
        pictures=row.pictures,
    )


def from_line(row: JsonRow) -> Sample:
    """Returns the question of a line of the official files."""
    split = next((name for name in SPLITS if name in row.file.stem), row.file.stem)
    own, picture = row.text("question_id"), row.text("image")
    answer = row.text("label").strip().capitalize()
    if answer not in ("", "Yes", "No"):
        row.note("label", f"found '{answer[:60]}'", "Give yes or no")
    return Sample(
        id=f"{split}/{own}" if row.several else own,
        where=row.where,
        question=row.text("text"),
        answers=(answer,),
        labels={"splits": split},
        cluster=picture,
        pictures=(Picture(picture, picture),),
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table, of one official file, or of a folder with all three."""
    if path.suffix.lower() == ".tsv":
        needs = ("question", "answer", "category")
        return read_tsv(path, from_table, needs=needs, pictures=pictures)
    return read_lines(path, from_line, pattern="*pope*.json*")


def splits(labels: Mapping[str, str]) -> list[str]:
    """Returns the splits that a question is one of."""
    return [name.strip() for name in labels["splits"].split(",") if name.strip()]


def metrics(scored: Sequence[ScoredSample], *, known_only: bool = False) -> Metrics:
    """Returns F1, precision and recall of Yes, accuracy and the share of Yes, whole and by split.

    A question counts once for each of its splits.

    Args:
        scored: The questions.
        known_only: Recall leaves responses out that say neither, as in lmms-eval.
    """
    found = Metrics()
    for one in scored:
        for split in splits(one.labels):
            for part in ("", f"/{split}"):
                _count(found, one, part, known_only=known_only)
                for name, formula in _formulas(part).items():
                    found.formulas.setdefault(f"{name}{part}", formula)
    seen = sorted({split for one in scored for split in splits(one.labels)})
    for name in ("accuracy", "f1"):
        found.formulas[f"macro_{name}"] = _mean_of([_formulas(f"/{split}")[name] for split in seen])
    return found


def _count(found: Metrics, one: ScoredSample, part: str, *, known_only: bool) -> None:
    yes, said_yes = one.answers[0] == "Yes", one.answer == "Yes"
    add = found.sums.add
    add(one.cluster, f"n{part}")
    add(one.cluster, f"right{part}", one.score)
    add(one.cluster, f"said_yes{part}", said_yes)
    add(one.cluster, f"hit{part}", yes and said_yes)
    add(one.cluster, f"yes{part}", yes and not (known_only and one.answer is None))


def _formulas(part: str) -> dict[str, Formula]:
    precision = ratio(f"hit{part}", f"said_yes{part}")
    recall = ratio(f"hit{part}", f"yes{part}")

    def f1(totals: Totals) -> Array:
        p, r = precision(totals), recall(totals)
        return divided(2 * p * r, p + r)

    accuracy, yes_ratio = share(f"right{part}", f"n{part}"), share(f"said_yes{part}", f"n{part}")
    return dict(zip(COUNTED, (accuracy, precision, recall, f1, yes_ratio), strict=True))


def _mean_of(formulas: Sequence[Formula]) -> Formula:
    return lambda totals: sum(formula(totals) for formula in formulas) / max(len(formulas), 1)


def _rules(
    extract: Callable[[str], YesNo | None], headline: str = "f1", *, known_only: bool = False
) -> Rules:
    return Rules(
        judge=judge_yes_no(extract),
        metrics=lambda scored: metrics(scored, known_only=known_only),
        headline=headline,
    )


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    read=read,
    families={
        "vlmevalkit": _rules(yes_or_no),
        "lmms": _rules(exact_yes_no, known_only=True),
        "clean": _rules(clean_yes_no),
        "official": _rules(first_sentence_yes_no, "macro_f1"),
    },
    expected={"rows": 9000, "rows of a .tsv": 5127},
    files=("POPE.tsv", "coco_pope*.json*"),
    layouts=("VLMEvalKit's .tsv", "one official .json file", "a folder with the three of them"),
    form=YES_NO,
)

"""POPE: is an object in the image? Random, popular and adversarial questions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import GradedSample, Image, Sample
from ..data.tables import TableRow, read_table
from ..scorers.clean import clean_yes_no
from ..scorers.formats import YES_NO
from ..scorers.yes_no import YesNo, exact_yes_no, first_sentence_yes_no, yes_or_no
from ..stats.metrics import Array, Formula, Metrics, Totals, divide, mean_of, ratio, share
from . import Benchmark, Scorer
from ._yes_no import grade_yes_no

SPLITS = ("random", "popular", "adversarial")


def from_table(row: TableRow) -> Sample:
    """Build the question of a row of VLMEvalKit's table, which may belong to several splits."""
    labels = {"splits": row.need("category")}
    if labels["splits"] and not splits_of(labels):
        row.note("category", f"got '{labels['splits'][:60]}'", f"Use {', '.join(SPLITS)}")
    return row.sample(answers=(row.yes_or_no(),), labels=labels)


def from_line(row: JsonRow) -> Sample:
    """Build the question of a line of the official files."""
    split = next((name for name in SPLITS if name in row.file.stem), row.file.stem)
    question_id, image = row.text("question_id"), row.text("image")
    answer = row.text("label").strip().capitalize()
    if answer not in ("", "Yes", "No"):
        row.note("label", f"got '{answer[:60]}'", "Use yes or no")
    return Sample(
        id=f"{split}/{question_id}" if row.several else question_id,
        where=row.where,
        question=row.text("text"),
        answers=(answer,),
        labels={"splits": split},
        cluster=image,
        images=(Image(image, image),),
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read a table, one official file, or a directory with all three."""
    if path.suffix.lower() == ".tsv":
        columns = ("question", "answer", "category")
        return read_table(path, from_table, columns, with_images=with_images)
    return read_json_files(path, from_line, pattern="*pope*.json*")


def splits_of(labels: Mapping[str, str]) -> list[str]:
    """Return the splits that a question belongs to."""
    return [name.strip() for name in labels["splits"].split(",") if name.strip()]


def metrics(samples: Sequence[GradedSample], *, parsed_only: bool = False) -> Metrics:
    """Return F1, precision and recall of Yes, accuracy and the yes ratio, also by split.

    A question counts once per split. With `parsed_only`, recall ignores responses without yes or
    no, as in lmms-eval.
    """
    result = Metrics()
    for sample in samples:
        for split in splits_of(sample.labels):
            for part in ("", f"/{split}"):
                _count(result, sample, part, parsed_only=parsed_only)
                for name, formula in _formulas(part).items():
                    result.formulas.setdefault(f"{name}{part}", formula)
    splits = sorted({split for sample in samples for split in splits_of(sample.labels)})
    for name in ("accuracy", "f1"):
        by_split = [_formulas(f"/{split}")[name] for split in splits]
        result.formulas[f"macro_{name}"] = mean_of(by_split)
    return result


def _count(metrics: Metrics, sample: GradedSample, part: str, *, parsed_only: bool) -> None:
    yes, predicted_yes = sample.answers[0] == "Yes", sample.answer == "Yes"
    counts_as_yes = yes and not (parsed_only and sample.answer is None)
    for name, value in {
        "n": 1.0,
        "right": sample.score,
        "predicted_yes": predicted_yes,
        "hit": yes and predicted_yes,
        "yes": counts_as_yes,
    }.items():
        metrics.sums.add(sample.cluster, f"{name}{part}", value)


def _formulas(part: str) -> dict[str, Formula]:
    precision = ratio(f"hit{part}", f"predicted_yes{part}")
    recall = ratio(f"hit{part}", f"yes{part}")

    def f1(totals: Totals) -> Array:
        p, r = precision(totals), recall(totals)
        return divide(2 * p * r, p + r)

    return {
        "accuracy": share(f"right{part}", f"n{part}"),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "yes_ratio": share(f"predicted_yes{part}", f"n{part}"),
    }


def _scorer(
    extract: Callable[[str], YesNo | None], headline: str = "f1", *, parsed_only: bool = False
) -> Scorer:
    measure = partial(metrics, parsed_only=parsed_only)
    return Scorer(grade=grade_yes_no(extract), metrics=measure, headline=headline)


BENCHMARK = Benchmark(
    name="pope",
    title="POPE",
    read=read,
    scorers={
        "vlmevalkit": _scorer(yes_or_no),
        "lmms": _scorer(exact_yes_no, parsed_only=True),
        "clean": _scorer(clean_yes_no),
        "official": _scorer(first_sentence_yes_no, "macro_f1"),
    },
    expected={"rows": 9000, "rows of a .tsv": 5127},
    files=("POPE.tsv", "coco_pope*.json*"),
    layouts=("VLMEvalKit's .tsv", "one official .json file", "a directory with all three"),
    response_format=YES_NO,
)

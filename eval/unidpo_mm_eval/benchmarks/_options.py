"""Shared by benchmarks of questions with lettered options."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.samples import Judged, Sample, ScoredSample
from ..data.tables import TABLE, TsvRow, read_tsv
from ..scorers.clean import clean_option
from ..scorers.formats import LETTER
from ..scorers.options import chosen_option
from ..stats.metrics import Metrics, mean_metrics
from . import Benchmark, Rules

__all__ = ["accuracy", "judge_option", "option_benchmark", "option_sample", "read_options"]


def option_sample(row: TsvRow) -> Sample:
    """Returns a question with options from a row of VLMEvalKit's table."""
    options, answer = row.options(), row.letter()
    if not options:
        row.note("A", "the question has no option", "Give at least one")
    elif answer and answer not in options:
        found = f"the answer is '{answer}' and the options are {', '.join(options)}"
        row.note("answer", found, "Give the letter of an option")
    return Sample(
        id=row.id,
        where=row.where,
        question=row.get("question"),
        hint=row.get("hint"),
        options=options,
        answers=(answer,),
        labels=row.labels(),
        cluster=row.picture,
        pictures=row.pictures,
    )


def read_options(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of a table."""
    return read_tsv(path, option_sample, needs=("question", "A", "answer"), pictures=pictures)


def judge_option(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the response chooses the right letter: VLMEvalKit's rule without judge."""
    choice = chosen_option(response, sample.options, rule=protocol.get("mcq", "mcq-v1"))
    right = choice.letter is not None and choice.letter == sample.answers[0]
    return Judged(float(right), choice.letter, note="refused" if choice.refused else "")


def judge_clean(sample: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where a lenient search finds the right letter."""
    choice = clean_option(response, sample.options)
    right = choice.letter is not None and choice.letter == sample.answers[0]
    return Judged(float(right), choice.letter, note="refused" if choice.refused else "")


def accuracy(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the accuracy over all questions, and by label."""
    return mean_metrics("accuracy", [(one.cluster, one.score, one.labels) for one in scored])


def option_benchmark(name: str, title: str, file: str, rows: int, **families: Rules) -> Benchmark:
    """Returns a benchmark of questions with options and no circular copies.

    Args:
        name: Of its file.
        title: As people call it.
        file: What its table is called.
        rows: How many a whole file has.
        families: Rules beside VLMEvalKit's.
    """
    rules = {
        family: Rules(judge=judge, metrics=accuracy, headline="accuracy")
        for family, judge in (("vlmevalkit", judge_option), ("clean", judge_clean))
    }
    return Benchmark(
        name=name,
        title=title,
        read=read_options,
        families=rules | families,
        expected={"rows": rows},
        files=(file,),
        layouts=(TABLE,),
        form=LETTER,
    )

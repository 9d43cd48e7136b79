"""The quick-start's pictures: which kinds of things does a caption name, and are they there?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import DataSet
from ..data.json_files import JsonRow, read_lines
from ..data.samples import Judged, Picture, Sample, ScoredSample
from ..demo.kinds import named_kinds
from ..scorers.formats import SHORT
from ..stats.metrics import Metrics, mean_metrics, share
from . import Benchmark, Rules

__all__ = ["BENCHMARK"]


def sample(row: JsonRow) -> Sample:
    """Returns the question about a picture, with the kinds that it shows."""
    kinds = row.record.get("kinds")
    if not isinstance(kinds, list) or not kinds:
        row.note("kinds", f"found {str(kinds)[:60]!r}", "Give the list of kinds that it shows")
        kinds = []
    picture = row.text("image")
    return Sample(
        id=row.text("id"),
        where=row.where,
        question=row.text("question"),
        answers=tuple(map(str, kinds)),
        labels={"objects": str(len(kinds))},
        pictures=(Picture(picture, picture),),
        extras={"caption": row.text("caption")},
    )


def read(path: Path, pictures: bool) -> DataSet:
    """Returns the questions of the quick-start's file."""
    return read_lines(path, sample, pattern="test_pictures.jsonl")


def judge(question: Sample, response: str, protocol: Mapping[str, Any]) -> Judged:
    """Returns 1 where the first kind that a caption names is in the picture."""
    named = named_kinds(response)
    right = bool(named) and named[0] in question.answers
    details = {
        "named": len(named),
        "recalled": len(set(named) & set(question.answers)),
        "words": len(response.split()),
        "exact": float(response == question.extras["caption"]),
    }
    return Judged(float(right), ", ".join(named) or None, details=details)


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns how often the first kind is right, a second one is made up, and what is left out."""
    none: Mapping[str, str] = {}
    found = mean_metrics("accuracy", [(one.cluster, one.score, none) for one in scored])
    single = [one for one in scored if len(one.answers) == 1]
    made_up = [(one.cluster, float(one.details.get("named", 0) > 1), none) for one in single]
    mean_metrics("hallucination_rate", made_up, metrics=found)
    for one in scored:
        found.sums.add(one.cluster, "pictures")
        found.sums.add(one.cluster, "objects", len(one.answers))
        for name in ("recalled", "words", "exact"):
            found.sums.add(one.cluster, name, one.details.get(name, 0.0))
    found.formulas["object_recall"] = share("recalled", "objects")
    found.formulas["exact"] = share("exact", "pictures")
    found.formulas["caption_words"] = share("words", "pictures", scale=1.0)
    return found


BENCHMARK = Benchmark(
    name="quickstart",
    title="The quick-start's unseen pictures",
    read=read,
    families={"official": Rules(judge=judge, metrics=metrics, headline="accuracy")},
    expected={"rows": 200},
    files=("test_pictures.jsonl",),
    layouts=("the file that `unidpo-mm demo` writes",),
    form=SHORT,
)

"""The quick-start's images: does a caption name the kinds of objects that an image shows?

The quick-start draws its images from the same kinds, so it imports them from here.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.dataset import Dataset
from ..data.json_files import JsonRow, read_json_files
from ..data.samples import Grade, GradedSample, Image, Sample
from ..scorers.formats import SHORT
from ..stats.metrics import MetricRow, Metrics, mean_metrics, mean_score, share
from . import Benchmark, Scorer

KINDS: dict[str, tuple[str, ...]] = {
    "animal": ("animal-",),
    "building": ("place-building", "place-religious"),
    "face": ("face-",),
    "flag": ("country-flag",),
    "food": ("food-",),
    "hand": ("hand-", "hands"),
    "heart": ("heart",),
    "person": ("person-role", "person-fantasy"),
    "plant": ("plant-",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
}
"""Kind -> prefixes of the subcategories of the emoji list that belong to it."""


def named_kinds(caption: str) -> list[str]:
    """Return the kinds that a caption names, in order and without repetition.

    Plurals count.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    singulars = [word if word in KINDS else word.removesuffix("s") for word in words]
    return list(dict.fromkeys(word for word in singulars if word in KINDS))


def sample(row: JsonRow) -> Sample:
    """Build the question about an image, with the kinds that it shows."""
    kinds = row.record.get("kinds")
    if not isinstance(kinds, list) or not kinds:
        row.note("kinds", f"got {str(kinds)[:60]!r}", "Use the list of kinds in the image")
        kinds = []
    image = row.text("image")
    return Sample(
        id=row.text("id"),
        where=row.where,
        question=row.text("question"),
        answers=tuple(map(str, kinds)),
        labels={"objects": str(len(kinds))},
        images=(Image(image, image),),
        extras={"caption": row.text("caption")},
    )


def read(path: Path, with_images: bool) -> Dataset:
    """Read the questions of the quick-start's file."""
    return read_json_files(path, sample, pattern="test_images.jsonl")


def grade(question: Sample, response: str, options: Mapping[str, Any]) -> Grade:
    """Return 1 if the first kind that a caption names is in the image."""
    named = named_kinds(response)
    details = {
        "named": len(named),
        "recalled": len(set(named) & set(question.answers)),
        "words": len(response.split()),
        "exact": float(response == question.extras["caption"]),
    }
    correct = bool(named) and named[0] in question.answers
    return Grade(float(correct), ", ".join(named) or None, details=details)


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the accuracy of the first kind, the rate of invented second kinds, and recall."""
    result = mean_score("accuracy", samples, by_label=False)
    single = [item for item in samples if len(item.answers) == 1]
    invented: list[MetricRow] = [
        (item.cluster, float(item.details.get("named", 0) > 1), {}) for item in single
    ]
    mean_metrics("hallucination_rate", invented, metrics=result)
    for item in samples:
        result.sums.add(item.cluster, "images")
        result.sums.add(item.cluster, "objects", len(item.answers))
        for name in ("recalled", "words", "exact"):
            result.sums.add(item.cluster, name, item.details.get(name, 0.0))
    result.formulas["object_recall"] = share("recalled", "objects")
    result.formulas["exact"] = share("exact", "images")
    result.formulas["caption_words"] = share("words", "images", scale=1.0)
    return result


BENCHMARK = Benchmark(
    name="quickstart",
    title="The quick-start's unseen images",
    read=read,
    scorers={"official": Scorer(grade=grade, metrics=metrics, headline="accuracy")},
    expected={"rows": 200},
    files=("test_images.jsonl",),
    layouts=("the file that `unidpo-mm demo` writes",),
    response_format=SHORT,
)

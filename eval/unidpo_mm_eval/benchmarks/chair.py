"""CHAIR: objects that captions mention although they are not in the image.

The data are a directory with COCO's instances_*.json and captions_*.json and the list of synonyms,
synonyms.txt: one line per class with its comma-separated names, the class first. Plurals become
singulars of words on that list; double words ("hot dog") have priority over single ones. The
metrics depend on the prompt and on the maximum length of captions.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import Dataset, build_dataset
from ..data.samples import Grade, GradedSample, Image, Sample
from ..data.tables import not_utf8
from ..stats.metrics import Metrics, ratio
from . import Benchmark, Scorer

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
    "geese": "goose", "oxen": "ox", "knives": "knife", "calves": "calf", "feet": "foot",
    "teeth": "tooth", "policemen": "policeman", "servicemen": "serviceman",
}  # fmt: skip
ENDINGS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
"""(plural, singular); the first that gives a word of the list counts."""
MAX_WORDS = 2
"""Number of words of the longest name."""
PHRASES = {"toilet seat": "toilet", "train track": "", "bow tie": "tie"}
"""Double words that mean another class than their parts, or none."""
NOT_CLASSES = ("animal", "vehicle")
"""A word such as "baby" or "passenger" in front of these is not a person."""


def read(path: Path, with_images: bool) -> Dataset:
    """Build a sample per image, with the classes of its instances and its reference captions."""
    folder = path if path.is_dir() else path.parent
    instances, captions = (
        sorted(folder.glob(f"{name}*.json")) for name in ("instances", "captions")
    )
    synonyms = folder / "synonyms.txt"
    problems = [
        Problem(str(folder), f"no file {name}", "Save it there; see `eval list`")
        for name, exists in (
            ("instances_*.json", instances),
            ("captions_*.json", captions),
            (synonyms.name, synonyms.is_file()),
        )
        if not exists
    ]
    if problems:
        raise DataError(problems)
    classes = _classes(synonyms)
    objects: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for file in instances:
        content = _json(file, "images", "annotations", "categories")
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        names |= {str(entry["id"]): str(entry.get("file_name", "")) for entry in content["images"]}
        for entry in content["annotations"]:
            name = categories[entry["category_id"]]
            objects[str(entry["image_id"])].add(classes.get(name, name))
    for file in captions:
        content = _json(file, "images", "annotations")
        names |= {str(entry["id"]): str(entry.get("file_name", "")) for entry in content["images"]}
        for entry in content["annotations"]:
            objects[str(entry["image_id"])].update(mentioned(entry["caption"], classes))
    samples = [
        Sample(
            id=image_id,
            where=f"{folder}, image {image_id}",
            question="Describe the image.",
            answers=tuple(sorted(objects[image_id])),
            images=(Image(name, Path(name)),) if name else (),
            extras={"synonyms": str(synonyms)},
        )
        for image_id, name in sorted(names.items())
    ]
    return build_dataset(path, samples, files=[*instances, *captions, synonyms])


def mentioned(caption: str, classes: Mapping[str, str]) -> list[str]:
    """Return the class (name -> class in `classes`) of each mention in a caption."""
    words = [_singular(word, classes) for word in WORD.findall(caption.lower())]
    mentions, at = [], 0
    while at < len(words):
        double = " ".join(words[at : at + MAX_WORDS])
        if double in PHRASES or double in classes:
            name = PHRASES.get(double, classes.get(double, ""))
            mentions += [classes.get(name, name)] if name else []
            at += MAX_WORDS
            continue
        following = words[at + 1] if at + 1 < len(words) else ""
        if words[at] in classes and following not in NOT_CLASSES:
            mentions.append(classes[words[at]])
        at += 1
    return mentions


def grade_all(responses: Sequence[tuple[Sample, str]], options: Mapping[str, Any]) -> list[Grade]:
    """Return 1 for captions without a hallucinated object, and counts of their objects."""
    classes = _classes(Path(responses[0][0].extras["synonyms"])) if responses else {}
    grades = []
    for sample, response in responses:
        objects = mentioned(response, classes)
        wrong = [name for name in objects if name not in sample.answers]
        details = {
            "mentions": len(objects),
            "hallucinated": len(wrong),
            "recalled": len(set(objects) & set(sample.answers)),
            "shown": len(sample.answers),
        }
        answer = ", ".join(dict.fromkeys(objects)) or "no object"
        note = f"hallucinated: {', '.join(dict.fromkeys(wrong))}" if wrong else ""
        grades.append(Grade(float(not wrong), answer, note=note, details=details))
    return grades


def metrics(samples: Sequence[GradedSample]) -> Metrics:
    """Return the share of captions and of mentions that are hallucinated, and recall.

    Only images with a caption count, since usually only a part of COCO is captioned.
    """
    result = Metrics()
    for sample in samples:
        if sample.missing:
            continue
        result.sums.add(sample.cluster, "captions")
        result.sums.add(sample.cluster, "wrong", 1 - sample.score)
        for name, value in sample.details.items():
            result.sums.add(sample.cluster, name, value)
    result.formulas = {
        "chair_s": ratio("wrong", "captions"),
        "chair_i": ratio("hallucinated", "mentions"),
        "recall": ratio("recalled", "shown"),
        "captions": lambda totals: totals["captions"],
        "mentions_each": ratio("mentions", "captions", scale=1.0),
    }
    return result


def captioned(samples: Sequence[GradedSample]) -> dict[str, float]:
    """Return image -> score of the images with a caption."""
    return {sample.id: sample.score for sample in samples if not sample.missing}


def _classes(path: Path) -> dict[str, str]:
    """Return name -> class from a list of synonyms."""
    classes: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, error)) from error
    for line in lines:
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        classes |= {name: names[0] for name in names if name not in classes}
    return classes


def _singular(word: str, classes: Mapping[str, str]) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word in classes:
        return word
    for plural, singular in ENDINGS:
        bare = word.removesuffix(plural) + singular
        if word.endswith(plural) and bare in classes:
            return bare
    return word.removesuffix("s") if word.endswith("s") and not word.endswith("ss") else word


def _json(path: Path, *keys: str) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = f"the file is not valid JSON ({error})"
        raise DataError(Problem(str(path), text, "Download it again")) from error
    absent = [name for name in keys if not isinstance(content, dict) or name not in content]
    if absent:
        text = f"missing {', '.join(absent)}"
        raise DataError(Problem(str(path), text, "Use COCO's annotations as published"))
    return content


BENCHMARK = Benchmark(
    name="chair",
    title="CHAIR on COCO captions",
    read=read,
    scorers={
        "official": Scorer(
            grade_all=grade_all,
            metrics=metrics,
            headline="chair_s",
            unit_scores=captioned,
            missing_is_wrong=False,
        )
    },
    expected={},
    files=("instances_val2014.json",),
    layouts=("a directory with COCO's instances_*.json, captions_*.json and synonyms.txt",),
)

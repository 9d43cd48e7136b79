"""CHAIR: objects that captions mention although they are not in the image.

The data are a directory with COCO's instances_*.json and captions_*.json and a list of synonyms,
synonyms.txt: one line per class with its comma-separated names, of which the first is the class.
Plurals are matched with the singulars on that list, and two-word names ("hot dog") take precedence
over single words. The metrics depend on the prompt and on the maximum length of captions.
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
"""Plural and singular endings; the first pair that yields a word on the list is used."""
MAX_WORDS = 2
"""Maximum number of words in a name."""
PHRASES = {"toilet seat": "toilet", "train track": "", "bow tie": "tie"}
"""Two-word phrase -> the class that it denotes despite its words; empty if there is none."""
MODIFIED_NOUNS = ("animal", "vehicle")
"""Nouns whose modifier is not a mention of a class: a "baby animal" is not a person."""


def read(path: Path, with_images: bool) -> Dataset:
    """Build a sample per image, with the classes of its instances and its reference captions."""
    folder = path if path.is_dir() else path.parent
    instances, captions = (
        sorted(folder.glob(f"{name}*.json")) for name in ("instances", "captions")
    )
    synonyms = folder / "synonyms.txt"
    problems = [
        Problem(str(folder), f"the directory contains no file {name}", "Add it; see `eval list`")
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
        content = _json(
            file,
            images=("id",),
            annotations=("image_id", "category_id"),
            categories=("id", "name"),
        )
        categories = {entry["id"]: entry["name"] for entry in content["categories"]}
        names |= {str(entry["id"]): str(entry.get("file_name", "")) for entry in content["images"]}
        for entry in content["annotations"]:
            name = categories.get(entry["category_id"])
            if name is None:
                text = f"unknown category_id {entry['category_id']}"
                raise DataError(Problem(str(file), text, "Use COCO's annotations as published"))
            objects[str(entry["image_id"])].add(classes.get(name, name))
    for file in captions:
        content = _json(file, images=("id",), annotations=("image_id", "caption"))
        names |= {str(entry["id"]): str(entry.get("file_name", "")) for entry in content["images"]}
        for entry in content["annotations"]:
            objects[str(entry["image_id"])].update(mentioned(str(entry["caption"]), classes))
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
    """Return the class of each mention in a caption; `classes` maps names to classes."""
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
        if words[at] in classes and following not in MODIFIED_NOUNS:
            mentions.append(classes[words[at]])
        at += 1
    return mentions


def grade_all(responses: Sequence[tuple[Sample, str]], options: Mapping[str, Any]) -> list[Grade]:
    """Grade captions: 1 without hallucinated objects, else 0; the details are counts of objects."""
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
    """Return the shares of captions with hallucinations and of hallucinated mentions, and recall.

    Only images with a caption count, because usually only some images of COCO are captioned.
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
    """Return the score of each image that has a caption, by the id of the image."""
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


def _json(path: Path, **keys: Sequence[str]) -> Any:
    """Return the content of a file, after checking its lists: name -> keys of each entry."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        text = f"the file is not valid JSON ({error})"
        raise DataError(Problem(str(path), text, "Download it again")) from error
    for name, entry_keys in keys.items():
        entries = content.get(name) if isinstance(content, dict) else None
        text = ""
        if not isinstance(entries, list):
            text = f"the list '{name}' is missing"
        elif not all(
            isinstance(entry, dict) and entry.keys() >= {*entry_keys} for entry in entries
        ):
            text = f"an entry of '{name}' lacks {' or '.join(entry_keys)}"
        if text:
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

"""CHAIR: objects that captions mention and pictures do not show.

The data are a folder with COCO's instances_*.json and captions_*.json and the list of synonyms,
synonyms.txt: one line for each of the 80 classes, its names with commas, the class first. Plurals
become singulars of words on that list; double words ("hot dog") come before single ones. Values
depend on the prompt and on how long captions may be.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem

from ..data.dataset import DataSet, data_set
from ..data.samples import Judged, Picture, Sample, ScoredSample
from ..stats.metrics import Metrics, ratio
from . import Benchmark, Rules

__all__ = ["BENCHMARK"]

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
IRREGULAR = {
    "people": "person", "men": "man", "women": "woman", "children": "child", "mice": "mouse",
    "geese": "goose", "oxen": "ox", "knives": "knife", "calves": "calf", "feet": "foot",
    "teeth": "tooth", "policemen": "policeman", "servicemen": "serviceman",
}  # fmt: skip
ENDINGS = (("ies", "y"), ("ves", "f"), ("es", ""), ("s", ""))
"""Of plurals, and of their singulars; the first that gives a word of the list counts."""
LONGEST = 2
"""Words of the longest name."""
PHRASES = {"toilet seat": "toilet", "train track": "", "bow tie": "tie"}
"""Double words that mean another class than their parts, or none."""
NOT_OF_CLASSES = ("animal", "vehicle")
"""In front of these a word such as "baby" or "passenger" is no person of its own."""


def read(path: Path, pictures: bool) -> DataSet:
    """Returns one sample for each picture, with the classes that it shows.

    A picture shows what its instances are, and what people's captions of it mention.
    """
    folder = path if path.is_dir() else path.parent
    instances, captions = (
        sorted(folder.glob(f"{name}*.json")) for name in ("instances", "captions")
    )
    synonyms = folder / "synonyms.txt"
    problems = [
        Problem(str(folder), f"there is no {name}", "Put it there; see `eval list`")
        for name, there in (
            ("instances_*.json", instances),
            ("captions_*.json", captions),
            (synonyms.name, synonyms.is_file()),
        )
        if not there
    ]
    if problems:
        raise DataError(problems)
    classes = _classes(synonyms)
    shown: dict[str, set[str]] = defaultdict(set)
    names: dict[str, str] = {}
    for file in instances:
        content = _json(file, "images", "annotations", "categories")
        own = {one["id"]: one["name"] for one in content["categories"]}
        names |= {str(one["id"]): str(one.get("file_name", "")) for one in content["images"]}
        for one in content["annotations"]:
            name = own[one["category_id"]]
            shown[str(one["image_id"])].add(classes.get(name, name))
    for file in captions:
        content = _json(file, "images", "annotations")
        names |= {str(one["id"]): str(one.get("file_name", "")) for one in content["images"]}
        for one in content["annotations"]:
            shown[str(one["image_id"])].update(mentioned(one["caption"], classes))
    samples = [
        Sample(
            id=image,
            where=f"{folder}, picture {image}",
            question="Describe the picture.",
            answers=tuple(sorted(shown[image])),
            pictures=(Picture(name, Path(name)),) if name else (),
            extras={"synonyms": str(synonyms)},
        )
        for image, name in sorted(names.items())
    ]
    return data_set(path, samples, files=[*instances, *captions, synonyms])


def mentioned(caption: str, classes: Mapping[str, str]) -> list[str]:
    """Returns the classes that a caption mentions, once for each mention.

    Args:
        caption: What is said of a picture.
        classes: Name -> its class.
    """
    words = [_singular(word, classes) for word in WORD.findall(caption.lower())]
    found, at = [], 0
    while at < len(words):
        double = " ".join(words[at : at + LONGEST])
        if double in PHRASES or double in classes:
            name = PHRASES.get(double, classes.get(double, ""))
            found += [classes.get(name, name)] if name else []
            at += LONGEST
            continue
        following = words[at + 1] if at + 1 < len(words) else ""
        if words[at] in classes and following not in NOT_OF_CLASSES:
            found.append(classes[words[at]])
        at += 1
    return found


def judge_all(asked: Sequence[tuple[Sample, str]], options: Mapping[str, Any]) -> list[Judged]:
    """Returns 1 for captions without a hallucinated object, and what they mention."""
    classes = _classes(Path(asked[0][0].extras["synonyms"])) if asked else {}
    judged = []
    for sample, response in asked:
        objects = mentioned(response, classes)
        wrong = [name for name in objects if name not in sample.answers]
        judged.append(
            Judged(
                float(not wrong),
                ", ".join(dict.fromkeys(objects)) or "no object",
                note=f"hallucinated: {', '.join(dict.fromkeys(wrong))}" if wrong else "",
                details={
                    "mentions": len(objects),
                    "hallucinated": len(wrong),
                    "recalled": len(set(objects) & set(sample.answers)),
                    "shown": len(sample.answers),
                },
            )
        )
    return judged


def metrics(scored: Sequence[ScoredSample]) -> Metrics:
    """Returns the share of captions and of mentions that are hallucinated, and recall.

    Only pictures with a caption count, as captions of a part of COCO are the rule.
    """
    found = Metrics()
    for one in scored:
        if one.missing:
            continue
        found.sums.add(one.cluster, "captions")
        found.sums.add(one.cluster, "wrong", 1 - one.score)
        for name, value in one.details.items():
            found.sums.add(one.cluster, name, value)
    found.formulas = {
        "chair_s": ratio("wrong", "captions"),
        "chair_i": ratio("hallucinated", "mentions"),
        "recall": ratio("recalled", "shown"),
        "captions": lambda totals: totals["captions"],
        "mentions_each": ratio("mentions", "captions", scale=1.0),
    }
    return found


def _classes(path: Path) -> dict[str, str]:
    """Returns name -> class of a list of synonyms."""
    found: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        text = f"the file is no UTF-8 ({error.reason} at byte {error.start})"
        raise DataError(Problem(str(path), text, "Write the file as UTF-8")) from error
    for line in lines:
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        found |= {name: names[0] for name in names if name not in found}
    return found


def _singular(word: str, classes: Mapping[str, str]) -> str:
    if word in classes and word not in IRREGULAR:
        return word
    if word in IRREGULAR:
        return IRREGULAR[word]
    for plural, singular in ENDINGS:
        bare = word.removesuffix(plural) + singular
        if word.endswith(plural) and bare in classes:
            return bare
    return word.removesuffix("s") if word.endswith("s") and not word.endswith("ss") else word


def _json(path: Path, *needs: str) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        found = f"the file cannot be read as JSON ({error})"
        raise DataError(Problem(str(path), found, "Download it again")) from error
    absent = [name for name in needs if not isinstance(content, dict) or name not in content]
    if absent:
        found = f"there is no {', '.join(absent)} in it"
        raise DataError(Problem(str(path), found, "Give COCO's annotations as they are published"))
    return content


def captioned(scored: Sequence[ScoredSample]) -> dict[str, float]:
    """Returns picture -> score of those that have a caption."""
    return {one.id: one.score for one in scored if not one.missing}


BENCHMARK = Benchmark(
    name="chair",
    title="CHAIR on COCO captions",
    read=read,
    families={
        "official": Rules(
            judge_all=judge_all,
            metrics=metrics,
            headline="chair_s",
            unit_scores=captioned,
            missing_are_wrong=False,
        ),
    },
    expected={},
    files=("instances_val2014.json",),
    layouts=("a folder with COCO's instances_*.json, captions_*.json and synonyms.txt",),
)

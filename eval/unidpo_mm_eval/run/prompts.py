"""Samples of a benchmark as prompts of a model family: words, pictures, and how large they are."""

import hashlib
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import ImageSlot, Message, PreferenceRow, Response

from ..benchmarks import Benchmark
from ..data.dataset import DataSet
from ..data.images import picture_folder, picture_reference
from ..data.samples import Sample
from ..prompts import PromptProfile, worded

__all__ = ["Question", "by_size", "questions_of", "shuffled_pictures"]

MARK = re.compile(r"<image (\d+)>")
CAPTION = "caption"
"""Kind of question where a benchmark asks for no form."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question as a model is asked it.

    Attributes:
        id: Of the sample.
        row: The prompt; None where it cannot be asked.
        error: Why not.
        area: Pixels of its pictures, as far as their headers say.
        length: Characters of its words.
    """

    id: str
    row: PreferenceRow | None = None
    error: str | None = None
    area: int = 0
    length: int = 0

    def prompt_hash(self) -> str:
        """Returns a hash of the words and of where pictures stand."""
        return _hash(repr(self.row.messages).encode()) if self.row else ""

    def pictures_hash(self) -> str:
        """Returns a hash of the pictures' contents; empty without pictures."""
        if self.row is None or not self.row.images:
            return ""
        return _hash(" ".join(image.key() for image in self.row.images).encode())


def questions_of(
    benchmark: Benchmark,
    data: DataSet,
    profile: PromptProfile,
    *,
    images: Path | None = None,
    raw: bool = False,
) -> list[Question]:
    """Returns the questions of a benchmark, in the order of its data.

    Args:
        benchmark: The benchmark.
        data: Its samples, with pictures.
        profile: How they are put.
        images: Folder of the pictures, where the data name files; None for that of the data.
        raw: Prompts are rendered without a chat template.
    """
    kind = benchmark.form.kind if benchmark.form else CAPTION
    framing = profile.framing(benchmark.name, kind)
    folder = picture_folder(data.path, images)
    made = []
    for sample in data.samples:
        try:
            text, place = worded(sample, framing), framing.pictures or profile.pictures
            row = _row(sample, text, place, profile.system, benchmark, folder, raw=raw)
            area = sum(_area(image) for image in row.images)
        except DataError as error:
            made.append(Question(id=sample.id, error=str(error)))
            continue
        length = sum(len(message.text) for message in row.messages)
        made.append(Question(id=sample.id, row=row, area=area, length=length))
    return made


def shuffled_pictures(data: DataSet, seed: int) -> DataSet:
    """Returns the data with another picture in place of each one: the control.

    Equal pictures are replaced alike. Whatever a model still gets right it does not get from its
    pictures.

    Raises:
        DataError: If there are no two different pictures.
    """
    known = {picture.key: picture for one in data.samples for picture in one.pictures}
    names = sorted(known)
    if len(names) < 2:
        found = f"there are {len(names)} different pictures, and two at least can be shuffled"
        raise DataError(Problem(str(data.path), found, "Leave --shuffle-pictures out"))
    random.Random(f"pictures-{seed}").shuffle(names)
    other = dict(zip(names, [*names[1:], *names[:1]], strict=True))
    samples = (
        replace(one, pictures=tuple(known[other[picture.key]] for picture in one.pictures))
        for one in data.samples
    )
    return replace(data, samples=tuple(samples))


def _row(
    sample: Sample,
    text: str,
    place: str,
    system: str | None,
    benchmark: Benchmark,
    folder: Path,
    *,
    raw: bool,
) -> PreferenceRow:
    end = "\n\n" if raw else ""  # without a template nothing else parts the turns
    first = [Message("system", (f"{system}{end}",))] if system else []
    images = tuple(picture_reference(one, folder, sample.where) for one in sample.pictures)
    parts, order = _parts(text, len(images), place)
    return PreferenceRow(
        id=sample.id,
        domain="multimodal" if images else "text",
        source=benchmark.name,
        where=sample.where,
        messages=(*first, Message("user", parts)),
        images=tuple(images[number] for number in order),
        responses=(Response("(asked)"),),  # a row has one; a prompt alone leaves it out
        raw=True,
    )


def _parts(
    text: str, pictures: int, place: str
) -> tuple[tuple[str | ImageSlot, ...], tuple[int, ...]]:
    """Returns words and places of pictures in reading order, and which picture stands where."""
    marks = [int(mark) - 1 for mark in MARK.findall(text)]
    if place == "marked" and marks and all(0 <= mark < pictures for mark in marks):
        unmarked = [number for number in range(pictures) if number not in marks]
        found: list[str | ImageSlot] = [ImageSlot()] * len(unmarked)
        for number, piece in enumerate(MARK.split(text)[::2]):
            found += [ImageSlot()] * (number > 0) + ([piece] if piece else [])
        return tuple(found), (*unmarked, *marks)
    slots = (ImageSlot(),) * pictures
    return (text, *slots) if place == "last" else (*slots, text), tuple(range(pictures))


def _area(image: Any) -> int:
    """Returns the pixels that a picture's header tells; 0 where it tells none."""
    from PIL import Image

    source: Any = getattr(image, "path", None) or getattr(image, "content", None)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return int(opened.width * opened.height)
    except Exception:  # decoders raise what they like; the picture is told of when it is needed
        return 0


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def by_size(questions: Sequence[Question]) -> list[int]:
    """Returns the numbers of the questions that can be asked, the largest first."""
    asked = [number for number, one in enumerate(questions) if one.row is not None]
    return sorted(asked, key=lambda n: (-questions[n].area, -questions[n].length, n))

"""Samples of a benchmark as prompts: text, images, and their size."""

import hashlib
import io
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..data.images import image_folder, image_reference
from ..protocols import PromptProfile, render_question

MARK = re.compile(r"<image (\d+)>")
CAPTION = "caption"
"""Kind of the questions of a benchmark without a response format."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The prompt of one sample."""

    id: str
    row: PreferenceRow | None = None  # The prompt; `None` if it cannot be built
    error: str | None = None  # Why not
    area: int = 0  # Number of pixels of its images according to their headers
    length: int = 0  # Number of characters of its text

    def record(self) -> dict[str, str]:
        """Return hashes of the text with the image positions, and of the images' contents."""
        if self.row is None:
            return {"prompt": ""}
        # the hashes of earlier versions contain the former name of an image slot
        text = repr(self.row.messages).replace("MediaSlot(kind='image')", "ImageSlot()")
        record = {"prompt": _hash(text)}
        if self.row.images:
            record["images"] = _hash(" ".join(image.key() for image in self.row.images))
        return record


def build_prompts(
    benchmark: Benchmark,
    data: Dataset,
    profile: PromptProfile,
    *,
    images: Path | None = None,
    raw: bool = False,
) -> list[Prompt]:
    """Build the prompts of a benchmark in the order of its data."""
    kind = benchmark.response_format.kind if benchmark.response_format else CAPTION
    template = profile.template(benchmark.name, kind)
    placement = template.images or profile.images
    system = f"{profile.system or ''}" + ("\n\n" if raw else "")  # nothing else separates turns
    first = (Message("system", (system,)),) if profile.system else ()
    folder = image_folder(data.path, images)
    prompts = []
    for sample in data.samples:
        try:
            text = render_question(sample, template)
            references = [image_reference(i, folder, sample.where) for i in sample.images]
        except DataError as error:
            prompts.append(Prompt(id=sample.id, error=str(error)))
            continue
        parts, order = _parts(text, len(references), placement)
        row = PreferenceRow(
            id=sample.id,
            domain="multimodal" if references else "text",
            source=benchmark.name,
            where=sample.where,
            messages=(*first, Message("user", parts)),
            images=tuple(references[number] for number in order),
            responses=(Response("(none yet)"),),  # a row needs one; prompts do not contain it
            raw=True,
        )
        length = sum(len(message.text) for message in row.messages)
        area = sum(map(_area, row.images))
        prompts.append(Prompt(id=sample.id, row=row, area=area, length=length))
    return prompts


def shuffle_images(data: Dataset, seed: int) -> Dataset:
    """Replace each image by another one, equal images alike: a control.

    Whatever a model still gets right does not depend on its images.
    """
    by_key = {image.key: image for sample in data.samples for image in sample.images}
    keys = sorted(by_key)
    if len(keys) < 2:
        text = f"the data contain {len(keys)} different images; at least two can be shuffled"
        raise DataError(Problem(str(data.path), text, "Remove --shuffle-images"))
    random.Random(f"images-{seed}").shuffle(keys)
    other = dict(zip(keys, [*keys[1:], *keys[:1]], strict=True))
    samples = (
        replace(sample, images=tuple(by_key[other[image.key]] for image in sample.images))
        for sample in data.samples
    )
    return replace(data, samples=tuple(samples))


def largest_first(prompts: Sequence[Prompt]) -> list[int]:
    """Return the indices of the valid prompts, the largest first."""
    valid = [n for n, prompt in enumerate(prompts) if prompt.row is not None]
    return sorted(valid, key=lambda n: (-prompts[n].area, -prompts[n].length, n))


def _parts(
    text: str, images: int, placement: str
) -> tuple[tuple[str | MediaSlot, ...], tuple[int, ...]]:
    """Return text and image slots in reading order, and the image of each slot."""
    marks = [int(mark) - 1 for mark in MARK.findall(text)]
    if placement == "marked" and marks and all(0 <= mark < images for mark in marks):
        unmarked = [number for number in range(images) if number not in marks]
        parts: list[str | MediaSlot] = [MediaSlot("image")] * len(unmarked)
        for number, piece in enumerate(MARK.split(text)[::2]):
            parts += [MediaSlot("image")] * (number > 0) + ([piece] if piece else [])
        return tuple(parts), (*unmarked, *marks)
    slots = (MediaSlot("image"),) * images
    return (text, *slots) if placement == "last" else (*slots, text), tuple(range(images))


def _area(image: Any) -> int:
    """Return the number of pixels according to an image's header; 0 if that cannot be read."""
    from PIL import Image

    source: Any = getattr(image, "path", None) or getattr(image, "content", None)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            return int(opened.width * opened.height)
    except Exception:  # decoders raise any exception; opening the image later reports it
        return 0


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]

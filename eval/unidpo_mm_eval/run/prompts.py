"""Samples of a benchmark as prompts."""

import random
import re
from dataclasses import replace
from pathlib import Path

from unidpo_mm.errors import DataError, Problem
from unidpo_mm.inference.prompts import Prompt, prompt_of
from unidpo_mm.records import NO_RESPONSE, MediaSlot, Message, PreferenceRow, Response

from ..benchmarks import Benchmark
from ..data.dataset import Dataset
from ..data.images import image_folder, image_reference, video_reference
from ..protocols import PromptProfile, render_question

MARK = re.compile(r"<image (\d+)>")
CAPTION = "caption"
"""Kind of the questions of a benchmark without a response format."""


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
            videos = tuple(video_reference(v, folder, sample.where) for v in sample.videos)
        except DataError as error:
            prompts.append(Prompt(id=sample.id, error=str(error)))
            continue
        parts, order = _parts(text, len(references), placement)
        row = PreferenceRow(
            id=sample.id,
            domain="multimodal" if references or videos else "text",
            source=benchmark.name,
            where=sample.where,
            messages=(*first, Message("user", _with_videos(parts, len(videos)))),
            images=tuple(references[number] for number in order),
            videos=videos,
            responses=(Response(NO_RESPONSE),),
            raw=True,
        )
        prompts.append(prompt_of(row))
    return prompts


def shuffle_images(data: Dataset, seed: int) -> Dataset:
    """Replace each image by another one, equal images by the same one: a control.

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


def _with_videos(parts: tuple[str | MediaSlot, ...], videos: int) -> tuple[str | MediaSlot, ...]:
    """Return the parts of a message with videos after the images at its beginning."""
    start = next((n for n, part in enumerate(parts) if isinstance(part, str)), len(parts))
    return (*parts[:start], *((MediaSlot("video"),) * videos), *parts[start:])


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

"""Made-up rows: one image, two images of different sizes, a wide image, a video, and no media."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..data.images import MemoryImage
from ..data.videos import FramesVideo
from ..records import ImageRef, MediaSlot, Message, Pair, PreferenceRow, Response

__all__ = ["rows_with_images", "rows_with_videos", "rows_without_images", "with_other_medium"]

WHERE = "conformance check"


def rows_with_images() -> list[PreferenceRow]:
    """Return a row with one image, with two images, and with a wide image."""
    return [
        _row("one image", "What is it?", ("A red square", "Blue"), [(56, 42)]),
        _row(
            "two images",
            "How many are there?",
            ("There are two of them", "One", "Three, I think"),
            [(42, 70), (84, 64)],
        ),
        _row("a wide image", "Where is it?", ("On the left", "Nowhere"), [(160, 48)]),
    ]


def rows_with_videos() -> list[PreferenceRow]:
    """Return a row with a video, and one with an image and a video of another length."""
    return [
        _row("a video", "What happens?", ("It gets darker", "Nothing"), [], [5]),
        _row("an image and a video", "Is it the same?", ("No", "It is"), [(56, 42)], [8]),
    ]


def rows_without_images() -> list[PreferenceRow]:
    """Return two rows of different lengths without images."""
    return [
        _row("a short prompt", "Write one word.", ("Hello", "Two words"), []),
        _row("a long prompt", "Count to ten. " * 4, ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10", "No"), []),
    ]


def with_other_medium(row: PreferenceRow, place: int) -> PreferenceRow:
    """Return a row in which the image or the video at a place of `PreferenceRow.media` differs."""
    images = [
        _inverted(image) if number == place else image for number, image in enumerate(row.images)
    ]
    videos = [
        FramesVideo(tuple(map(_inverted, video.frames))) if number == place else video
        for number, video in enumerate(row.videos, start=len(images))
        if isinstance(video, FramesVideo)
    ]
    return dataclasses.replace(row, images=tuple(images), videos=tuple(videos))


def _inverted(image: ImageRef) -> ImageRef:
    from PIL import ImageOps

    return MemoryImage(ImageOps.invert(image.open()), WHERE)


def _row(
    name: str,
    prompt: str,
    responses: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    lengths: Sequence[int] = (),
) -> PreferenceRow:
    """Return a row with images of some sizes and videos of some numbers of frames."""
    images = [_reference(_image(number, size)) for number, size in enumerate(sizes, start=1)]
    videos = [
        FramesVideo(tuple(_reference(_image(3 + number, (60, 44))) for number in range(length)))
        for length in lengths
    ]
    slots = (*(MediaSlot("image") for _ in images), *(MediaSlot("video") for _ in videos))
    return PreferenceRow(
        id=name,
        domain="multimodal" if slots else "text",
        source=WHERE,
        where=WHERE,
        messages=(Message("user", (*slots, prompt)),),
        images=tuple(images),
        videos=tuple(videos),
        responses=tuple(Response(text, float(-n)) for n, text in enumerate(responses)),
        pairs=(Pair(0, 1),),
        raw=True,
    )


def _reference(image: Any) -> ImageRef:
    return MemoryImage(image, WHERE)


def _image(shade: int, size: tuple[int, int]) -> Any:
    """Return an image in which colors and places differ."""
    from PIL import Image

    image = Image.new("RGB", size)
    pixels = [
        ((60 * shade + 5 * x) % 256, (90 * shade + 7 * y) % 256, (x * y + 40 * shade) % 256)
        for y in range(size[1])
        for x in range(size[0])
    ]
    image.putdata(pixels)
    return image

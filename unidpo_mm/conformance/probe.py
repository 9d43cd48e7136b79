"""Made-up rows: one image, two images of different sizes, a wide image, and no images."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..data.images import MemoryImage
from ..records import ImageRef, MediaSlot, Message, Pair, PreferenceRow, Response

__all__ = ["rows_with_images", "rows_without_images", "with_other_image"]

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


def rows_without_images() -> list[PreferenceRow]:
    """Return two rows of different lengths without images."""
    return [
        _row("a short prompt", "Write one word.", ("Hello", "Two words"), []),
        _row("a long prompt", "Count to ten. " * 4, ("1, 2, 3, 4, 5, 6, 7, 8, 9, 10", "No"), []),
    ]


def with_other_image(row: PreferenceRow, place: int) -> PreferenceRow:
    """Return a row in which the image at a place is inverted."""
    from PIL import ImageOps

    images = list(row.images)
    images[place] = _reference(ImageOps.invert(images[place].open()))
    return dataclasses.replace(row, images=tuple(images))


def _row(
    name: str, prompt: str, responses: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> PreferenceRow:
    images = [_reference(_image(number, size)) for number, size in enumerate(sizes, start=1)]
    return PreferenceRow(
        id=name,
        domain="multimodal" if images else "text",
        source=WHERE,
        where=WHERE,
        messages=(Message("user", (*(MediaSlot("image") for _ in images), prompt)),),
        images=tuple(images),
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

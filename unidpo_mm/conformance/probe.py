"""Made-up rows: one image, two images of different sizes, a wide image, and no image."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ..data.images import MemoryImage
from ..records import ImageRef, MediaSlot, Message, Pair, PreferenceRow, Response

__all__ = ["probe_rows", "with_other_image"]

WHERE = "conformance check"


def probe_rows() -> list[PreferenceRow]:
    """Return rows with images, and one without as the last."""
    return [
        _row("one image", "What is it?", ("A red square", "Blue"), [(56, 42)]),
        _row(
            "two images",
            "How many are there?",
            ("There are two of them", "One", "Three, I think"),
            [(42, 70), (84, 64)],
        ),
        _row("a wide image", "Where is it?", ("On the left", "Nowhere"), [(160, 48)]),
        _row("no image", "Write one word.", ("Hello", "Two words"), []),
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

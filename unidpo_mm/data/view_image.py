"""Images that are changed when they are opened, with which chosen responses are compared.

A changed image only depends on the pixels of the image, so that it is the same in every epoch and
on every machine, and its reference log-probs can be cached.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy
from numpy.typing import NDArray

from ..records import ImageRef

__all__ = ["ChangedView", "ViewImage"]

ChangedView = Literal["crop", "mask", "noise"]

PATCHES = 16
"""Patches along the longer side of a masked image."""
GRAY = 127


@dataclass(frozen=True, slots=True)
class ViewImage:
    """An image that is changed when it is opened.

    Attributes:
        image: The image.
        view: ``crop`` (a part, enlarged to the size of the image), ``mask`` (patches become gray)
            or ``noise`` (as in the forward process of diffusion).
        kept: The share that remains, in (0, 1]: of the area, or of the variance.
    """

    image: ImageRef
    view: ChangedView
    kept: float

    def open(self) -> Any:
        """Return the changed image in RGB, with the size of the image."""
        image = self.image.open()
        seed = hashlib.sha256(f"{image.size} {self.view}".encode() + image.tobytes()).digest()
        random = numpy.random.default_rng(int.from_bytes(seed[:8], "little"))
        return CHANGES[self.view](image, self.kept, random)

    def describe(self) -> str:
        """Return the name of the image and its change."""
        return f"{self.image.describe()} ({self.view})"

    def key(self) -> str:
        """Return a hash of the image and its change."""
        return hashlib.sha256(f"{self.view} {self.kept} {self.image.key()}".encode()).hexdigest()


def _crop(image: Any, kept: float, random: numpy.random.Generator) -> Any:
    sides = [max(1, round(side * math.sqrt(kept))) for side in image.size]
    corner = [
        int(random.integers(full - side + 1)) for full, side in zip(image.size, sides, strict=True)
    ]
    box = (*corner, corner[0] + sides[0], corner[1] + sides[1])
    return image.resize(image.size, box=box)


def _mask(image: Any, kept: float, random: numpy.random.Generator) -> Any:
    pixels = numpy.array(image)
    side = max(1, math.ceil(max(image.size) / PATCHES))
    rows, columns = (math.ceil(length / side) for length in pixels.shape[:2])
    hidden = numpy.zeros(rows * columns, dtype=bool)
    hidden[random.permutation(rows * columns)[round(kept * rows * columns) :]] = True
    mask = hidden.reshape(rows, columns).repeat(side, 0).repeat(side, 1)
    pixels[mask[: pixels.shape[0], : pixels.shape[1]]] = GRAY
    return _image(pixels)


def _noise(image: Any, kept: float, random: numpy.random.Generator) -> Any:
    pixels = numpy.array(image, dtype=numpy.float32) / 127.5 - 1
    noise = random.standard_normal(pixels.shape, dtype=numpy.float32)
    mixed = math.sqrt(kept) * pixels + math.sqrt(1 - kept) * noise
    return _image(((mixed + 1) * 127.5).clip(0, 255).round().astype(numpy.uint8))


def _image(pixels: NDArray[Any]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels)


CHANGES = {"crop": _crop, "mask": _mask, "noise": _noise}
"""View -> (image, share that remains, random numbers) -> image."""

"""Find images that look the same, such as copies in another size, format or quality.

An image is reduced to a small one, the *thumbnail*. Its difference hash has a bit for each pixel of
9 x 8 gray ones that says whether the next one is brighter (`STEPS`). Two images look the same if
their hashes differ in at most `MAX_DISTANCE` of 64 bits and no pixel of their thumbnails differs by
more than `MAX_GRAY_DIFFERENCE` or `MAX_COLOR_DIFFERENCE`.

The second condition is necessary for drawings. Of 1,000 canvases of the quick-start, 321 have a
hash within distance 4 of one of 300 canvases with other objects. Their pixels differ by at least 31
gray levels and 64 levels of a color. Copies as JPEG with a quality of 60, in half the size or in
1.3 times the size differ by at most 17 and 50.

Opening the image takes nearly all of the time: for 640 x 480 pixels, 4 ms as JPEG and 15 ms as PNG.
"""

from collections.abc import Iterator

import numpy
from numpy.typing import NDArray

from ..errors import DataError
from ..records import ImageRef
from .key_table import Indices, KeyTable, collect

__all__ = ["THUMBNAIL", "ImageTable", "Thumbnails", "difference_hashes", "near_pairs", "thumbnail"]

Thumbnails = NDArray[numpy.uint8]
"""[N, 16, 18, 3] Small images in RGB."""

THUMBNAIL = (16, 18, 3)
"""Height, width and colors of a thumbnail: 2 x 2 pixels for each pixel of the difference hash."""

GRAY = numpy.array([0.299, 0.587, 0.114], dtype=numpy.float32)
"""Weights of red, green and blue in gray, from ITU-R BT.601."""

REDUCING_GAP = 3.0
"""Pillow first averages whole blocks of large images, to this multiple of the thumbnail's size."""

MAX_DISTANCE = 4
"""Maximum number of different bits of the hashes of two images that look the same."""

MAX_GRAY_DIFFERENCE = 20
"""Maximum difference in gray of a pixel of the thumbnails of images that look the same, of 255."""

MAX_COLOR_DIFFERENCE = 56
"""Maximum difference in a color. It is larger, because JPEG stores colors in half the size."""

STEPS = (3.0, 8.0)
"""Gray levels by which the next pixel must be brighter, for each hash of an image.

With 0, compression would set the bits of plain areas at random: those of a canvas of the
quick-start and its copy as JPEG of quality 90 differ in up to 11 bits. With 3, one of several
thousand differs in more than four, because equal parts of a drawing reach the limit together; with
8, others do. Images look the same if their hashes for any of the limits are near.
"""

MIN_STEPS = 8
"""Minimum number of the 64 neighbors that differ by more than the limit in `STEPS`.

The hash of an image with fewer, such as an empty page, says almost nothing.
"""

BANDS = ((0, 13), (13, 13), (26, 13), (39, 13), (52, 12))
"""First bit and number of bits of parts of a hash.

If at most four bits differ, at least one of five parts is equal, so no pair is missed.
"""

COMPARED = 1 << 13
"""Number of pairs of thumbnails that are compared at once, in 40 MB."""

BIT_COUNTS = numpy.unpackbits(
    numpy.arange(1 << 16, dtype=numpy.uint16).view(numpy.uint8).reshape(-1, 2), axis=1
).sum(axis=1, dtype=numpy.uint8)
"""Number of bits that are set in each number of 16 bits."""


def thumbnail(image: ImageRef) -> NDArray[numpy.uint8] | None:
    """Return an image as 16 x 18 pixels in RGB; `None` if it cannot be opened."""
    from PIL import Image

    height, width, _ = THUMBNAIL
    try:
        opened = image.open()
    except DataError:
        return None
    lanczos = Image.Resampling.LANCZOS
    return numpy.asarray(opened.resize((width, height), lanczos, reducing_gap=REDUCING_GAP))


def difference_hashes(
    thumbnails: Thumbnails, step: float
) -> tuple[NDArray[numpy.uint64], NDArray[numpy.bool_]]:
    """Return difference hashes of 64 bits, and whether each says enough to compare images by it.

    Args:
        thumbnails: [N, 16, 18, 3] Small images.
        step: Gray levels by which the next pixel must be brighter.

    Returns:
        [N] Hashes, and [N] whether at least `MIN_STEPS` neighbors differ.
    """
    pixels = (thumbnails @ GRAY).reshape(-1, 8, 2, 9, 2).mean(axis=(2, 4))
    steps = numpy.diff(pixels, axis=2).reshape(len(pixels), 64)
    bits = numpy.packbits(steps > step, axis=1)
    informative = (numpy.abs(steps) > step).sum(axis=1) >= MIN_STEPS
    return bits.view(numpy.uint64).reshape(-1), informative


def near_pairs(
    left: NDArray[numpy.uint64], right: NDArray[numpy.uint64]
) -> tuple[Indices, Indices]:
    """Return the indices of all pairs of hashes that differ in at most `MAX_DISTANCE` bits.

    Args:
        left: [N] Hashes.
        right: [M] Hashes.
    """
    return collect(HashTable(right).pairs(left))


class HashTable:
    """Hashes in which near ones are looked up.

    Args:
        hashes: [N] Hashes of 64 bits.
    """

    def __init__(self, hashes: NDArray[numpy.uint64]) -> None:
        self._hashes = hashes
        self._bands = [KeyTable(_band(hashes, *band)) for band in BANDS]

    def pairs(self, queries: NDArray[numpy.uint64]) -> Iterator[tuple[Indices, Indices]]:
        """Yield the indices of queries and hashes that differ in few bits, each pair once."""
        for number, (band, table) in enumerate(zip(BANDS, self._bands, strict=True)):
            for left, right in table.pairs(_band(queries, *band)):
                different = queries[left] ^ self._hashes[right]
                near = _count_bits(different) <= MAX_DISTANCE
                for earlier in BANDS[:number]:  # pairs that an earlier band has in common
                    near &= _band(different, *earlier) != 0
                yield left[near], right[near]


class ImageTable:
    """Images in which those that look the same are looked up.

    Args:
        thumbnails: [N, 16, 18, 3] Small images.
    """

    def __init__(self, thumbnails: Thumbnails) -> None:
        self._thumbnails = thumbnails
        self._tables = []
        for step in STEPS:
            hashes, informative = difference_hashes(thumbnails, step)
            numbers = numpy.flatnonzero(informative)
            self._tables.append((step, numbers, HashTable(hashes[numbers])))

    def pairs(self, thumbnails: Thumbnails) -> tuple[Indices, Indices]:
        """Return the indices of images that look the same as images of the table.

        Args:
            thumbnails: [M, 16, 18, 3] Small images to look up.

        Returns:
            [P] Indices of `thumbnails`, and [P] indices of images of the table. A pair may occur
            once for each of `STEPS`.
        """
        parts = (
            self._alike(thumbnails, left[start:][:COMPARED], right[start:][:COMPARED])
            for left, right in self._near(thumbnails)
            for start in range(0, len(left), COMPARED)
        )
        return collect(parts)

    def _near(self, thumbnails: Thumbnails) -> Iterator[tuple[Indices, Indices]]:
        """Yield the pairs whose hashes are near."""
        for step, numbers, table in self._tables:
            hashes, informative = difference_hashes(thumbnails, step)
            searched = numpy.flatnonzero(informative)
            for left, right in table.pairs(hashes[searched]):
                yield searched[left], numbers[right]

    def _alike(
        self, thumbnails: Thumbnails, left: Indices, right: Indices
    ) -> tuple[Indices, Indices]:
        """Return the pairs whose thumbnails differ by little in every pixel."""
        difference = thumbnails[left].astype(numpy.int16) - self._thumbnails[right]
        color = numpy.abs(difference).max(axis=(1, 2, 3), initial=0)
        gray = numpy.abs(difference @ GRAY).max(axis=(1, 2), initial=0)
        alike = (gray <= MAX_GRAY_DIFFERENCE) & (color <= MAX_COLOR_DIFFERENCE)
        return left[alike], right[alike]


def _band(hashes: NDArray[numpy.uint64], first: int, width: int) -> NDArray[numpy.uint64]:
    return (hashes >> numpy.uint64(first)) & numpy.uint64((1 << width) - 1)


def _count_bits(values: NDArray[numpy.uint64]) -> NDArray[numpy.int64]:
    words = values.view(numpy.uint16).reshape(-1, 4)
    counts: NDArray[numpy.int64] = BIT_COUNTS[words].sum(axis=1, dtype=numpy.int64)
    return counts

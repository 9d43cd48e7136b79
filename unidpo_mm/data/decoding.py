"""Decode images into upright RGB."""

import contextlib
from typing import Any

from ..errors import ImageError, Problem

__all__ = ["MAX_PIXELS", "decode", "decoding_error"]

MAX_PIXELS = 89_478_485
"""Default maximum number of pixels of an image, above which Pillow warns; 256 MB decoded."""


def decode(source: Any, where: str, name: str, max_pixels: int) -> Any:
    """Return a new upright RGB image from a file, a stream or a `PIL.Image.Image`.

    `where` and `name` are for messages.

    Raises:
        ImageError: If it cannot be decoded or has more than `max_pixels` pixels.
    """
    from PIL import Image

    try:
        opened = hasattr(source, "convert")
        with contextlib.nullcontext(source) if opened else Image.open(source) as image:
            width, height = image.size
            if width * height <= max_pixels:  # otherwise nothing is decoded
                return _upright_rgb(image)
    except Image.DecompressionBombError as error:  # Pillow has a higher limit of its own
        text = f"the image '{name}' has too many pixels, the limit is {max_pixels:,} ({error})"
        raise ImageError(Problem(where, text, "Scale it down")) from error
    except Exception as error:  # decoders raise errors of many kinds
        text = f"the image '{name}' cannot be read ({decoding_error(error)})"
        raise ImageError(Problem(where, text, "Replace the image")) from error
    text = f"the image '{name}' has {width} x {height} pixels and the limit is {max_pixels:,}"
    remedy = "Scale it down, or increase data.images.max_pixels"
    raise ImageError(Problem(where, text, remedy))


def decoding_error(error: Exception) -> str:
    """Return the reason why an image cannot be decoded, without memory addresses."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    return str(error).strip() or type(error).__name__


def _upright_rgb(image: Any) -> Any:
    """Return the first frame, rotated according to EXIF, with 8 bits per channel.

    Transparency is dropped, as in the processors of transformers.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # otherwise Pillow warns
    return upright.convert("RGB")


def _eight_bits(image: Any) -> Any:
    """Scale a 16-bit image to 8 bits, because Pillow would clip it to white."""
    import numpy

    scaled = image.convert("F")
    if not numpy.isfinite(numpy.asarray(scaled)).all():
        raise ValueError("some of its pixels are not finite")
    highest = 65535 if image.mode.startswith("I") else max(scaled.getextrema()[1], 1e-12)
    if image.mode == "I" and scaled.getextrema()[1] <= 255:
        highest = 255
    return scaled.point(lambda value: value * (255 / highest)).convert("L")

"""Decodes images into upright RGB, and says why one cannot be decoded."""

from typing import Any

from ..errors import ImageError, Problem

__all__ = ["decoded", "decoding_error"]


def decoded(source: Any, where: str, name: str, max_pixels: int) -> Any:
    """Return a file, a stream or a `PIL.Image.Image` as an upright RGB image of its own."""
    from PIL import Image

    try:
        if hasattr(source, "convert"):
            _refuse_large(source, where, name, max_pixels)
            return _upright_rgb(source)
        with Image.open(source) as image:
            _refuse_large(image, where, name, max_pixels)  # before anything is decoded
            return _upright_rgb(image)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:  # so large that Pillow does not even open it
        text = f"the image '{name}' has too many pixels, the limit is {max_pixels:,} ({error})"
        raise ImageError(Problem(where, text, "Scale it down")) from error
    except Exception as error:  # decoders raise what they like
        text = f"the image '{name}' cannot be read ({decoding_error(error)})"
        raise ImageError(Problem(where, text, "Replace the image")) from error


def decoding_error(error: Exception) -> str:
    """Return why an image cannot be decoded, without the addresses of Pillow's objects."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    return str(error).strip() or type(error).__name__


def _refuse_large(image: Any, where: str, name: str, most: int) -> None:
    width, height = image.size
    if width * height > most:
        text = f"the image '{name}' has {width} x {height} pixels and the limit is {most:,}"
        remedy = "Scale it down, or raise data.images.max_pixels"
        raise ImageError(Problem(where, text, remedy))


def _upright_rgb(image: Any) -> Any:
    """Return the first frame, turned as its EXIF says, in 8 bits a channel.

    Transparency is dropped as the processors of transformers drop it.
    """
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I") or upright.mode == "F":
        upright = _eight_bits(upright)
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # Pillow asks for it before the colours are read
    return upright.convert("RGB")


def _eight_bits(image: Any) -> Any:
    """Return an image of 16 bits in 8: as it is, Pillow would clip it to white."""
    import numpy

    scaled = image.convert("F")
    if not numpy.isfinite(numpy.asarray(scaled)).all():
        raise ValueError("some of its pixels are no numbers")
    highest = 65535 if image.mode.startswith("I") else max(scaled.getextrema()[1], 1e-12)
    if image.mode == "I" and scaled.getextrema()[1] <= 255:
        highest = 255
    return scaled.point(lambda value: value * (255 / highest)).convert("L")

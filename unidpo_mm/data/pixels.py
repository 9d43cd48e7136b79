"""NumPy arrays and tensors as images.

An array is an image of (height, width), (height, width, channels) or (channels, height, width) with
1, 3 or 4 channels, in integers from 0 to 255 or in floats from 0 to 1. If both ends of the shape
could be channels, an array is (height, width, channels) and a torch tensor (channels, height,
width), as their libraries have it.
"""

from typing import Any

from .wrong import WrongValue

__all__ = ["image_of_pixels", "is_pixels"]

CHANNELS = (1, 3, 4)
HIGHEST = 255
ROUNDING = 1e-3
"""How far floats may leave [0, 1], as after resizing."""


def is_pixels(value: Any) -> bool:
    """Return whether a value is an array or a tensor; `PIL.Image.Image`s are not."""
    return hasattr(value, "__array__") and hasattr(value, "ndim") and not hasattr(value, "convert")


def image_of_pixels(value: Any) -> Any:
    """Return an array or a tensor as a `PIL.Image.Image`.

    Raises:
        WrongValue: If its shape or its values are not those of an image.
    """
    import numpy
    from PIL import Image

    is_tensor = hasattr(value, "detach")
    if is_tensor:
        value = value.detach().cpu()
        value = value.float() if value.is_floating_point() else value
        value = value.numpy()
    array = _channels_last(numpy.asarray(value), first=is_tensor)
    pixels = _bytes(array)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _channels_last(array: Any, *, first: bool) -> Any:
    """Return an array as [height, width, channels]; `first` decides where both could be."""
    if array.ndim == 2:
        array = array[:, :, None]
        first = False
    shape = " x ".join(map(str, array.shape)) or "no dimension"
    remedy = "Use (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels"
    if array.ndim != 3 or 0 in array.shape:
        raise WrongValue(f"an array of {shape} is not an image", remedy)
    channels_first, channels_last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if not (channels_first or channels_last):
        raise WrongValue(f"an array of {shape} is not an image", remedy)
    if channels_first and (first or not channels_last):
        array = array.transpose(1, 2, 0)
    return array


def _bytes(array: Any) -> Any:
    """Return the values of an array as unsigned bytes."""
    import numpy

    if array.dtype == numpy.uint8:
        return numpy.ascontiguousarray(array)
    remedy = "Use integers from 0 to 255, or floats from 0 to 1"
    if array.dtype == bool:
        return numpy.ascontiguousarray(array) * numpy.uint8(HIGHEST)
    if array.dtype.kind not in "iuf":
        raise WrongValue(f"an image is an array of {array.dtype}", remedy)
    low, high = float(array.min()), float(array.max())
    top, slack = (1.0, ROUNDING) if array.dtype.kind == "f" else (float(HIGHEST), 0.0)
    if not (-slack <= low and high <= top + slack):  # also if a value is not a number
        problem_text = f"the values of an image go from {low:g} to {high:g} as {array.dtype}"
        raise WrongValue(problem_text, remedy)
    if array.dtype.kind == "f":
        array = numpy.rint(array.clip(0.0, 1.0) * HIGHEST)
    return numpy.ascontiguousarray(array.astype(numpy.uint8))

"""Convert NumPy arrays and tensors to images.

An array has the shape (height, width), (height, width, channels) or (channels, height, width) with
1, 3 or 4 channels, and contains integers from 0 to 255 or floats from 0 to 1. If both the first and
the last dimension could be channels, NumPy arrays are read as (height, width, channels) and torch
tensors as (channels, height, width).
"""

from typing import Any

from .invalid_value import InvalidValue

__all__ = ["image_of_pixels", "is_pixels"]

CHANNELS = (1, 3, 4)
MAX_VALUE = 255
ROUNDING = 1e-3
"""Tolerance of floats outside of [0, 1], which resizing may cause."""


def is_pixels(value: Any) -> bool:
    """Return whether a value is an array or a tensor and not a `PIL.Image.Image`."""
    return hasattr(value, "__array__") and hasattr(value, "ndim") and not hasattr(value, "convert")


def image_of_pixels(value: Any) -> Any:
    """Return a `PIL.Image.Image` with the pixels of an array or a tensor.

    Raises:
        InvalidValue: If the shape or the values do not fit an image.
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
    """Return an array as [height, width, channels]; `first` decides if the shape is ambiguous."""
    if array.ndim == 2:
        array = array[:, :, None]
        first = False
    shape = " x ".join(map(str, array.shape)) or "no dimension"
    remedy = "Use (height, width, channels) or (channels, height, width) with 1, 3 or 4 channels"
    if array.ndim != 3 or 0 in array.shape:
        raise InvalidValue(f"an array of {shape} is not an image", remedy)
    channels_first, channels_last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
    if not (channels_first or channels_last):
        raise InvalidValue(f"an array of {shape} is not an image", remedy)
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
        return numpy.ascontiguousarray(array) * numpy.uint8(MAX_VALUE)
    if array.dtype.kind not in "iuf":
        raise InvalidValue(f"an image is an array of {array.dtype}", remedy)
    low, high = float(array.min()), float(array.max())
    top, slack = (1.0, ROUNDING) if array.dtype.kind == "f" else (float(MAX_VALUE), 0.0)
    if not (-slack <= low and high <= top + slack):  # also false for NaN
        problem_text = f"the values of an image go from {low:g} to {high:g} as {array.dtype}"
        raise InvalidValue(problem_text, remedy)
    if array.dtype.kind == "f":
        array = numpy.rint(array.clip(0.0, 1.0) * MAX_VALUE)
    return numpy.ascontiguousarray(array.astype(numpy.uint8))

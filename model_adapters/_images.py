"""Blank images for fillers, and limits of image sizes."""

import copy
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import ModelError, Problem

__all__ = ["BlankImage", "refuse_pixel_limits", "with_pixel_limits"]


class BlankImage:
    """A small gray image, created when it is opened."""

    size = (32, 32)

    def open(self) -> Any:
        """Return the image as a `PIL.Image.Image`."""
        from PIL import Image

        return Image.new("RGB", self.size, (128, 128, 128))

    def describe(self) -> str:
        """Return a description for messages."""
        return "a blank filler image"

    def key(self) -> str:
        """Return the same string for every blank image."""
        return "blank"


def refuse_pixel_limits(options: AdapterOptions, why: str) -> None:
    """Refuse limits of image sizes for a family with fixed sizes.

    Raises:
        ModelError: If a limit is set or images are to be resized.
    """
    problems = [
        Problem(f"model.{name}", f"it is {value} and {why}", "Remove it")
        for name in ("image_min_pixels", "image_max_pixels")
        if (value := getattr(options, name)) is not None
    ]
    if options.length_policy == "shrink_image":
        problem = f"images cannot be resized: {why}"
        remedy = "Choose truncate_response, drop or error"
        problems.append(Problem("data.length_policy", problem, remedy))
    if problems:
        raise ModelError(problems)


def with_pixel_limits(processor: Any, options: AdapterOptions) -> Any:
    """Return a copy of a processor that scales images to at least and at most a number of pixels.

    For processors that store these limits as ``shortest_edge`` and ``longest_edge``.

    Raises:
        ModelError: If the minimum exceeds the maximum.
    """
    low, high = options.image_min_pixels, options.image_max_pixels
    if low is None and high is None:
        return processor
    size = processor.image_processor.size
    low = int(size["shortest_edge"] if low is None else low)
    high = int(size["longest_edge"] if high is None else high)
    if low > high:
        problem = f"images need at least {low} and at most {high} pixels"
        remedy = "Set model.image_min_pixels below model.image_max_pixels"
        raise ModelError(Problem("model.image_max_pixels", problem, remedy))
    limited = copy.copy(processor)
    limited.image_processor = copy.deepcopy(processor.image_processor)
    limited.image_processor.size = {"shortest_edge": low, "longest_edge": high}
    return limited

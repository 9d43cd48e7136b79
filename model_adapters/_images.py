"""A blank image for fillers, and limits of image sizes."""

import copy
from typing import Any

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import ModelError, Problem

__all__ = ["BlankImage", "refuse_pixel_limits", "smaller", "with_pixel_limits"]


class BlankImage:
    """A small grey image that is made when it is opened."""

    size = (32, 32)

    def open(self) -> Any:
        """Return the image as a `PIL.Image.Image`."""
        from PIL import Image

        return Image.new("RGB", self.size, (128, 128, 128))

    def describe(self) -> str:
        """Says which image this is."""
        return "a blank filler image"

    def key(self) -> str:
        """Return the same string for every blank image."""
        return "blank"


def refuse_pixel_limits(options: AdapterOptions, why: str) -> None:
    """Refuse limits of image sizes, and shrinking, for a family that cannot follow them.

    Raises:
        ModelError: If a limit is set.
    """
    limits = {
        "image_min_pixels": options.image_min_pixels,
        "image_max_pixels": options.image_max_pixels,
    }
    problems = [
        Problem(f"model.{name}", f"it is {value} and {why}", "Leave it out")
        for name, value in limits.items()
        if value is not None
    ]
    if options.length_policy == "shrink_image":
        problem = f"images are to be made smaller and {why}"
        remedy = "Choose truncate_response, drop or error"
        problems.append(Problem("data.length_policy", problem, remedy))
    if problems:
        raise ModelError(problems)


def smaller(image: Any, scale: float) -> Any:
    """Return an image with its sides scaled; it stays as it is for a scale of 1 or more."""
    if scale >= 1:
        return image
    width, height = (max(round(side * scale), 1) for side in image.size)
    return image.resize((width, height))


def with_pixel_limits(processor: Any, options: AdapterOptions) -> Any:
    """Return a processor that scales images into the limits; the one given stays as it is.

    For processors whose image size is a least and a greatest number of pixels, kept as
    ``shortest_edge`` and ``longest_edge`` of the image processor.

    Raises:
        ModelError: If the limits cross.
    """
    low, high = options.image_min_pixels, options.image_max_pixels
    if low is None and high is None:
        return processor
    own = processor.image_processor.size
    low = int(own["shortest_edge"] if low is None else low)
    high = int(own["longest_edge"] if high is None else high)
    if low > high:
        problem = f"images have at least {low} and at most {high} pixels"
        remedy = "Set model.image_min_pixels below model.image_max_pixels"
        raise ModelError(Problem("model.image_max_pixels", problem, remedy))
    limited = copy.copy(processor)
    limited.image_processor = copy.deepcopy(processor.image_processor)
    limited.image_processor.size = {"shortest_edge": low, "longest_edge": high}
    return limited

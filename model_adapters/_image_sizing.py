"""Limits of image sizes, in the unit in which a model type sizes its images."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.encoding_choices import ImageUnit, parse_image_size
from unidpo_mm.errors import ModelError, Problem

from ._images import BlankImage

__all__ = ["FIXED", "PIXELS", "SIDE", "TILES", "Sizing", "with_size_limits"]

TEXTS: dict[ImageUnit, str] = {
    "pixels": "pixels",
    "side": "pixels of its longer side",
    "tiles": "tiles",
    "patches": "patches",
    "tokens": "image tokens",
}
RANGES: dict[ImageUnit, tuple[int, int]] = {
    "pixels": (256, 10**9),
    "side": (8, 16384),
    "tiles": (1, 128),
    "patches": (1, 131072),
    "tokens": (1, 65536),
}
"""Sizes that an image can have in each unit; a number outside is one in another unit."""


@dataclass(frozen=True)
class Sizing:
    """How a model type sizes its images.

    Attributes:
        unit: What the size of an image counts; ``fixed`` if every image is resized to the same size
            or one of a few, ``unknown`` for types without an entry.
        settings: The settings of the image processor that hold the maximum; a dot separates the
            name of a setting from that of an entry in it.
        shrinks: Whether a smaller image has fewer tokens, below that maximum.
        frames: The number of frames whose pixels the processor counts for an image.
    """

    unit: ImageUnit | Literal["fixed", "unknown"]
    settings: tuple[str, ...] = ()
    shrinks: bool = False
    frames: int = 1

    @property
    def description(self) -> str:
        """How images are sized, for messages."""
        if self.unit == "fixed":
            return "have a fixed size"
        if self.unit == "unknown":
            return "are sized in a way that is not known"
        low, high = RANGES[self.unit]
        return f"are limited by a number of {TEXTS[self.unit]}, {low} to {high}"

    def problem_with(self, value: int | str) -> str | None:
        """Return why a size is not one of this unit, as a remedy; `None` if it is."""
        if self.unit == "fixed" or self.unit == "unknown":
            return "Remove it"
        number, unit = parse_image_size(value)
        low, high = RANGES[self.unit]
        if unit in (None, self.unit) and low <= number <= high:
            return None
        return f"Use a number of {TEXTS[self.unit]}, or remove it"


FIXED = Sizing("fixed")
PIXELS = Sizing("pixels", ("size.longest_edge",), shrinks=True)
SIDE = Sizing("side", ("size.longest_edge",))
TILES = Sizing("tiles", ("max_patches",))


def with_size_limits(
    processor: Any, options: AdapterOptions, sizing: Sizing, model_type: str
) -> Any:
    """Return a copy of a processor with the limits of the options.

    Args:
        processor: The processor.
        options: The options of the run.
        sizing: How the model type sizes its images.
        model_type: The model type, for messages.

    Raises:
        ModelError: If a limit has no meaning for the model type, or the processor refuses it.
    """
    if problems := list(_problems(options, sizing, model_type)):
        raise ModelError(problems)
    minimum, maximum = _number(options.image_min_size), _number(options.image_max_size)
    if maximum is None and minimum is None:
        return processor
    limited = copy.copy(processor)
    limited.image_processor = copy.deepcopy(processor.image_processor)
    if maximum is not None:
        for setting in sizing.settings:
            _set(limited.image_processor, setting, maximum * sizing.frames)
    if minimum is not None:
        _set(limited.image_processor, "size.shortest_edge", minimum * sizing.frames)
    _check(limited, options, sizing)
    return limited


def _number(size: int | str | None) -> int | None:
    """Return the number of a size."""
    return None if size is None else parse_image_size(size)[0]


def _problems(options: AdapterOptions, sizing: Sizing, model_type: str) -> Iterator[Problem]:
    """Yield the problems of limits that have no meaning for a model type."""
    reason = f"the images of the model type '{model_type}' {sizing.description}"
    for name in ("image_min_size", "image_max_size"):
        value = getattr(options, name)
        if value is None:
            continue
        remedy = sizing.problem_with(value)
        if remedy is not None:
            yield Problem(f"model.{name}", f"it is {value}, and {reason}", remedy)
        elif name == "image_min_size" and sizing.unit != "pixels":
            problem = f"the images of the model type '{model_type}' have no minimum size"
            yield Problem(f"model.{name}", problem, "Remove it")
    if options.length_policy == "shrink_image" and not sizing.shrinks:
        problem = f"smaller images have the same number of tokens: {reason}"
        remedy = "Choose truncate_response, drop or error"
        yield Problem("data.length_policy", problem, remedy)


def _set(image_processor: Any, setting: str, value: int) -> None:
    """Set a setting or an entry of a setting that holds several."""
    name, _, entry = setting.partition(".")
    if not entry:
        setattr(image_processor, name, value)
        return
    entries = {
        key: size for key, size in dict(getattr(image_processor, name)).items() if size is not None
    }
    setattr(image_processor, name, {**entries, entry: value})


def _check(processor: Any, options: AdapterOptions, sizing: Sizing) -> None:
    """Refuse limits that contradict each other or that the processor does not accept."""
    low, high = _pixels(processor.image_processor, sizing)
    if low is not None and high is not None and low > high:
        problem = f"images need at least {low} and at most {high} pixels"
        remedy = (
            f"Use a number of pixels of {low} or more, or set model.image_min_size to a smaller one"
        )
        raise ModelError(Problem("model.image_max_size", problem, remedy))
    try:
        processor.image_processor(images=[BlankImage().open()], return_tensors="pt")
    except Exception as error:  # processors raise errors of any class
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        names = ("image_max_size", "image_min_size")
        name = next(name for name in names if getattr(options, name) is not None)
        problem = f"the model's processor refuses the limit {getattr(options, name)} ({text})"
        remedy = "Use another number, or remove it"
        raise ModelError(Problem(f"model.{name}", problem, remedy)) from error


def _pixels(image_processor: Any, sizing: Sizing) -> tuple[int | None, int | None]:
    """Return the minimum and maximum number of pixels; `None` for other units."""
    if sizing.unit != "pixels":
        return None, None
    size = dict(image_processor.size)
    return size["shortest_edge"] // sizing.frames, size["longest_edge"] // sizing.frames

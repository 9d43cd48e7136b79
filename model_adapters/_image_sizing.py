"""Limits of image sizes, in the unit in which a model type sizes its images."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from unidpo_mm.adapter import AdapterOptions
from unidpo_mm.errors import ModelError, Problem

from ._images import BlankImage

__all__ = ["FIXED", "PIXELS", "SIDE", "TILES", "Sizing", "with_size_limits"]

Unit = Literal["pixels", "side", "tiles", "patches", "tokens", "fixed", "unknown"]

TEXTS: dict[Unit, str] = {
    "pixels": "pixels",
    "side": "pixels of its longer side",
    "tiles": "tiles",
    "patches": "patches",
    "tokens": "image tokens",
}


@dataclass(frozen=True)
class Sizing:
    """How a model type sizes its images.

    Attributes:
        unit: What its limit counts.
        settings: The settings of the image processor that hold the maximum; a dot separates the
            name of a setting from that of an entry in it.
        shrinks: Whether a smaller image has fewer tokens, below that maximum.
        frames: The number of frames whose pixels the processor counts for an image.
    """

    unit: Unit
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
        return f"are limited by a number of {TEXTS[self.unit]}"


FIXED = Sizing("fixed")
PIXELS = Sizing("pixels", ("size.longest_edge",), shrinks=True)
SIDE = Sizing("side", ("size.longest_edge",))
TILES = Sizing("tiles", ("max_patches",))


def with_size_limits(processor: Any, options: AdapterOptions, sizing: Sizing, what: str) -> Any:
    """Return a copy of a processor with the limits of the options.

    Args:
        processor: The processor.
        options: The options of the run.
        sizing: How the model type sizes its images.
        what: The model type, for messages.

    Raises:
        ModelError: If a limit has no meaning for the model type, or the processor refuses it.
    """
    if problems := list(_problems(options, sizing, f"the images of {what} {sizing.description}")):
        raise ModelError(problems)
    maximum = options.image_max_size or options.image_max_pixels
    minimum = options.image_min_pixels
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


def _problems(options: AdapterOptions, sizing: Sizing, reason: str) -> Iterator[Problem]:
    """Yield the problems of limits that have no meaning for a model type."""
    unit = TEXTS.get(sizing.unit)
    if unit is None and options.image_max_size is not None:
        problem = f"it is {options.image_max_size} and {reason}"
        yield Problem("model.image_max_size", problem, "Remove it")
    for name in ("image_min_pixels", "image_max_pixels") if sizing.unit != "pixels" else ():
        if (value := getattr(options, name)) is not None:
            remedy = f"Remove it, or set model.image_max_size to a number of {unit}"
            yield Problem(
                f"model.{name}", f"it is {value} and {reason}", remedy if unit else "Remove it"
            )
    if None not in (options.image_max_size, options.image_max_pixels) and sizing.unit == "pixels":
        problem = f"image_max_pixels is set as well, and both are numbers of {unit}"
        yield Problem("model.image_max_size", problem, "Remove one of the two")
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
        remedy = "Set model.image_min_pixels below model.image_max_pixels"
        raise ModelError(Problem("model.image_max_pixels", problem, remedy))
    try:
        processor.image_processor(images=[BlankImage().open()], return_tensors="pt")
    except Exception as error:  # processors raise errors of any class
        text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        problem = f"the model's processor refuses the limit {options.image_max_size} ({text})"
        remedy = f"Choose another number of {TEXTS[sizing.unit]}"
        raise ModelError(Problem("model.image_max_size", problem, remedy)) from error


def _pixels(image_processor: Any, sizing: Sizing) -> tuple[int | None, int | None]:
    """Return the minimum and maximum number of pixels; `None` for other units."""
    if sizing.unit != "pixels":
        return None, None
    size = dict(image_processor.size)
    return size["shortest_edge"] // sizing.frames, size["longest_edge"] // sizing.frames

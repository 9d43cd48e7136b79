"""Types of option values, with their ranges."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from ..encoding_choices import parse_image_size

__all__ = [
    "ActivationMemory",
    "Count",
    "Finite",
    "Fraction",
    "FrameCount",
    "FramesPerSecond",
    "Gigabytes",
    "ImageSize",
    "LearningRate",
    "Name",
    "Names",
    "NonNegative",
    "PositiveShare",
    "Scale",
    "Seconds",
    "Seed",
    "Share",
    "Teraflops",
    "Weight",
    "as_tuple",
]

MAX_RATE = 100
"""Largest learning rate: optimizers such as Adam change every weight by about this amount."""

MIN_GIGABYTES = 1e-6
"""Smallest limit of memory or disk space."""


def as_tuple(value: Any) -> Any:
    """Convert a list to a tuple: YAML has lists only, and records are immutable."""
    return tuple(value) if isinstance(value, list) else value


def _memory(value: Any) -> Any:
    """Return ``auto``, or gigabytes; a command line passes a number as text."""
    if value == "auto":
        return value
    remedy = f"Use auto, or gigabytes, {MIN_GIGABYTES} or more, for example 8"
    try:
        gigabytes = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise ValueError(remedy) from None
    if not MIN_GIGABYTES <= gigabytes < float("inf"):
        raise ValueError(remedy)
    return gigabytes


def _image_size(value: Any) -> Any:
    """Return a number, or a number with its unit; a command line passes a number as text."""
    number, unit = parse_image_size(value)
    return number if unit is None else f"{number} {unit}"


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_bounds(scale: list[float]) -> tuple[float, float]:
    if len(scale) != 2:
        raise ValueError("Use two numbers, for example [0, 10]")
    if not scale[0] < scale[1]:
        raise ValueError(f"the lower end {scale[0]} of a scale must be below its upper end")
    if scale[1] - scale[0] == float("inf"):
        raise ValueError(f"the scale from {scale[0]} to {scale[1]} is too wide for numbers")
    return scale[0], scale[1]


def _zero_or_at_least(minimum: float, unit: str, zero: str) -> AfterValidator:
    def check(value: float) -> float:
        if 0 < value < minimum:
            raise ValueError(f"Use 0 for {zero}, or at least {minimum:g} {unit}")
        return value

    return AfterValidator(check)


Name = Annotated[str, Field(min_length=1)]
# A command line, such as that of HfArgumentParser, can only parse lists; records are immutable.
Names = Annotated[
    list[Name], BeforeValidator(_as_list), AfterValidator(tuple), PlainSerializer(list)
]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[
    list[Finite], BeforeValidator(_as_list), AfterValidator(_as_bounds), PlainSerializer(list)
]
LearningRate = Annotated[float, Field(ge=0, le=MAX_RATE)]
Gigabytes = Annotated[
    float, Field(ge=0, le=1e9), _zero_or_at_least(MIN_GIGABYTES, "gigabytes", "no cache")
]
Seconds = Annotated[float, Field(ge=0, le=1e9), _zero_or_at_least(1, "second", "no limit")]
ImageSize = Annotated[int | str, BeforeValidator(_image_size)]
"""A number, or a number with its unit."""
Weight = Annotated[float, Field(gt=0, le=1e6)]
TermWeight = Annotated[float, Field(ge=0, le=1e6)]
Teraflops = Annotated[float, Field(gt=0, le=1e6)]
FramesPerSecond = Annotated[float, Field(gt=0, le=1000)]
FrameCount = Annotated[int, Field(ge=2)]
ActivationMemory = Annotated[float | str, BeforeValidator(_memory)]

"""The option `train.image_preference`, see `losses/image_preference.py`."""

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict
from typing_extensions import TypedDict

from .values import PositiveShare, TermWeight

__all__ = ["ImagePreference", "ImageTerm", "View"]

View = Literal["crop", "mask", "noise", "shuffle", "column"]
"""Ways to make the other image of a row."""


class ImagePreference(TypedDict, total=False):
    """The option as it is set; keys that are not set have the defaults of `ImageTerm`."""

    # pydantic reads this name, which mypy takes for a field without a type
    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    weight: TermWeight
    view: View
    kept: PositiveShare
    anchor: TermWeight


@dataclass(frozen=True, kw_only=True)
class ImageTerm:
    """The option with its defaults.

    Attributes:
        weight: Weight of the preference for the image.
        view: How the other image is made.
        kept: Share of the image that remains in a changed image.
        anchor: Weight of the anchor.
    """

    weight: float = 1.0
    view: View = "crop"
    kept: float = 0.2
    anchor: float = 0.0

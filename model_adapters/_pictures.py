"""A blank picture, for fillers."""

from typing import Any

__all__ = ["BlankPicture"]


class BlankPicture:
    """A small grey picture that is made when it is opened."""

    size = (32, 32)

    def open(self) -> Any:
        """Returns the picture as a `PIL.Image.Image`."""
        from PIL import Image

        return Image.new("RGB", self.size, (128, 128, 128))

    def describe(self) -> str:
        """Says which picture this is."""
        return "a blank filler picture"

    def key(self) -> str:
        """Returns the same string for every blank picture."""
        return "blank"

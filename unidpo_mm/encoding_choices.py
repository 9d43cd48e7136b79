"""Choices of how a row becomes tokens, shared by recipes, the command line and adapters."""

import re
from typing import Literal, get_args

__all__ = ["ImageUnit", "LengthPolicy", "PromptStyle", "parse_image_size"]

LengthPolicy = Literal["error", "drop", "truncate_response", "shrink_image"]
"""What happens to a row that is longer than allowed."""

PromptStyle = Literal["auto", "chat", "raw"]
"""Whether plain string prompts are rendered by the chat template; `auto`: if there is one."""

ImageUnit = Literal["pixels", "side", "tiles", "patches", "tokens"]
"""The unit of the size of an image: its pixels, the pixels of its longer side, the tiles that it is
cut into, its patches, or its tokens."""

IMAGE_SIZE = re.compile(rf"([1-9]\d{{0,17}})(?: ({'|'.join(get_args(ImageUnit))}))?")


def parse_image_size(value: int | str) -> tuple[int, ImageUnit | None]:
    """Return the number and the unit of the size of an image, such as ``4`` or ``4 tiles``.

    Raises:
        ValueError: If it is neither a number nor a number with a unit.
    """
    match = None if isinstance(value, bool) else IMAGE_SIZE.fullmatch(str(value).strip())
    if match is None:
        units = ", ".join(get_args(ImageUnit))
        raise ValueError(
            f"Use a number, 1 or more, or a number with its unit ({units}), for example 4 tiles"
        )
    unit: ImageUnit | None = match[2]  # type: ignore[assignment] # one of the words of the pattern
    return int(match[1]), unit

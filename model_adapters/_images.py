"""Blank images for fillers, and the token whose place image features take."""

from typing import Any

__all__ = [
    "TOKEN_SETTINGS",
    "BlankImage",
    "feature_token_id",
    "input_tokens",
    "placeholder_token",
    "video_token_id",
]

TOKEN_SETTINGS = ("image_token_id", "image_token_index", "media_placeholder_token_id")
"""Settings with the id of the token whose place image features take."""
VIDEO_TOKEN_SETTINGS = ("video_token_id", "video_token_index")
"""The same for videos."""
TEXT_TOKENS = ("bos_", "eos_", "pad_", "sep_", "unk_", "decoder_")
"""Starts of the names of settings with ids that a model does not look for in its inputs."""


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


def placeholder_token(processor: Any) -> str:
    """Return the text that stands for an image in the texts of a processor; empty if it has none.

    Most processors repeat the token of the text for the features; some replace it by another one.
    """
    names = ("image_placeholder_token", "image_token")
    tokens = (getattr(processor, name, None) for name in names)
    return next((str(token) for token in tokens if token), "")  # some have an AddedToken


def feature_token_id(config: Any) -> int | None:
    """Return the id of the token whose place image features take; `None` if there is none."""
    return _first_id(config, TOKEN_SETTINGS)


def video_token_id(config: Any) -> int | None:
    """Return the id of the token whose place video features take; `None` if there is none."""
    return _first_id(config, VIDEO_TOKEN_SETTINGS)


def _first_id(config: Any, names: tuple[str, ...]) -> int | None:
    ids = (getattr(config, name, None) for name in names)
    return next((token_id for token_id in ids if isinstance(token_id, int)), None)


def input_tokens(config: Any) -> frozenset[int]:
    """Return the ids of tokens that a model looks for in its inputs, such as that of images."""
    settings = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    return frozenset(
        value
        for name, value in settings.items()
        if name.endswith(("_token_id", "_token_index"))
        and not name.startswith(TEXT_TOKENS)
        and isinstance(value, int)
    )

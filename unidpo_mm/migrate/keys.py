"""What a table of keys says of each key: the key here, what differs, and the default there."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

__all__ = ["SPLIT", "TRUNCATION", "UNSET", "Key", "as_list", "left_out", "quantised"]

UNSET: Any = object()
"""The default of a key that has none, or one that is the same here."""

TRUNCATION = (
    "only answers are cut, each to what its prompt leaves; prompts and images never are, and a "
    "prompt that leaves nothing is refused"
)
SPLIT = "rows are held out by prompt and image, so that no prompt is on both sides"


@dataclass(frozen=True)
class Key:
    """What becomes of one key of another framework.

    Attributes:
        ours: Its key path in a recipe; empty where nothing corresponds.
        text: What differs in meaning, or why it is left out and what to do instead.
        default: The default there, where it differs from ours and changes a run.
        convert: Turns the value there into the value here; raises RecipeError where it cannot.
        joint: Whether the origin reads it together with other keys, in its `complete`.
        quiet: Whether the text is for the page alone and makes no note.
    """

    ours: str = ""
    text: str = ""
    _: KW_ONLY
    default: Any = UNSET
    convert: Callable[[Any], Any] | None = None
    joint: bool = False
    quiet: bool = False


def left_out(text: str, names: str) -> dict[str, Key]:
    """Return keys that have no counterpart, all for the same reason.

    Args:
        text: Why, and what to do instead.
        names: The keys, with spaces.
    """
    return {name: Key("", text) for name in names.split()}


def quantised(names: str) -> dict[str, Key]:
    """Return the keys of quantised training, which is not built."""
    text = (
        "training on quantised weights is not built: they are loaded in model.dtype, so plan for "
        "that memory"
    )
    return left_out(text, names)


def as_list(value: Any) -> list[str]:
    """Return the names of a list, or of a text with commas."""
    if isinstance(value, int | float):
        return [str(value)]
    names = value.split(",") if isinstance(value, str) else value or []
    return [str(name).strip() for name in names]

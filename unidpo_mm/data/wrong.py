"""What is raised where a value cannot be used and its place is not known yet."""

from typing import Any

__all__ = ["WrongValue", "brief"]


class WrongValue(Exception):
    """A value cannot be used; whoever reads the field adds its place.

    Args:
        message: What is wrong.
        remedy: What to do about it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def brief(value: Any, limit: int = 60) -> str:
    """Return the beginning of a value's text, for messages.

    Some values have none: an integer of 10,000 digits, a list that holds itself.
    """
    try:
        return str(value)[:limit]
    except Exception:  # whatever the value's own code raises
        return "..."

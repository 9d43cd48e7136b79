"""The error for a value that cannot be used, raised before its place in the data is known."""

from typing import Any

__all__ = ["InvalidValue", "brief"]


class InvalidValue(Exception):
    """A value cannot be used; the reader of the field adds file, row and field.

    Args:
        message: The problem.
        remedy: How to fix it.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def brief(value: Any, limit: int = 60) -> str:
    """Return the beginning of a value's text, for messages.

    Some values cannot be converted, such as an integer of 10,000 digits.
    """
    try:
        return str(value)[:limit]
    except Exception:  # the value's own code may raise anything
        return "..."

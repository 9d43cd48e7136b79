"""What is raised where a value cannot be used and its place is not known yet."""

__all__ = ["WrongValue"]


class WrongValue(Exception):
    """A value cannot be used; whoever reads the field adds its place.

    Args:
        found: What was found.
        remedy: What to do about it.
    """

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found, self.remedy = found, remedy

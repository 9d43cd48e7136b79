r"""Finds what stands in \boxed{...}, braces matched."""

import re

__all__ = ["boxed"]

OPENING = re.compile(r"\\f?boxed\s*\{")


def boxed(text: str) -> list[str]:
    r"""Returns the content of every \boxed{...} and \fbox-like \fboxed{...}, in order.

    A box that is not closed, as in a response that was cut, is none.
    """
    found = []
    for opening in OPENING.finditer(text):
        depth = 1
        for position in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if not depth:
                found.append(text[opening.end() : position])
                break
    return found

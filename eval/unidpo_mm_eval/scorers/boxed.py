r"""Content of \boxed{...} with matched braces."""

import re

OPENING = re.compile(r"\\f?boxed\s*\{")


def find_boxes(text: str) -> list[str]:
    r"""Return the content of every \boxed{...} and \fboxed{...}, in order.

    An unclosed box, as in a truncated response, is ignored.
    """
    boxes = []
    for opening in OPENING.finditer(text):
        depth = 1
        for position in range(opening.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if not depth:
                boxes.append(text[opening.end() : position])
                break
    return boxes

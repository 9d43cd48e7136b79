"""A process that grades: reads one JSON object a line, writes one back; started by `pool`.

It says that it is ready before it reads, so that loading the libraries counts for no answer.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module

__all__ = ["PROFILES", "Grade"]

Grade = Callable[[str, str], tuple[float, str | None]]
"""(gold, response) -> (score, what was understood)."""

PACKAGE = "unidpo_mm_eval.scorers.math"
PROFILES = {
    "math-verify": ("math_verify", "plain"),
    "math-verify-clean": ("math_verify", "clean"),
    "official-simplerl": ("simplerl", "grade"),
}
"""Family of rules -> module beside this one, and function."""
WITH_UNITS = {"official-simplerl": ("simplerl", "grade_with_units")}
"""The same where units of an answer stay, as for the problems of Minerva."""


def main(profile: str, units: bool) -> None:
    """Grades until the input ends."""
    module, name = (PROFILES | WITH_UNITS if units else PROFILES)[profile]
    grade: Grade = getattr(import_module(f"{PACKAGE}.{module}"), name)
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        gold, response = json.loads(line)
        try:
            score, answer = grade(gold, response)
            found = {"score": score, "answer": answer}
        except Exception as error:  # parsers raise what they like: the answer is not understood
            found = {"score": 0.0, "answer": None, "note": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "units" in sys.argv[2:])

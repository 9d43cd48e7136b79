"""A grading process, started by `pool`: reads one JSON object per line and writes one back.

It reports that it is ready before it reads, so loading the libraries does not count toward the time
limit of an answer.
"""

import json
import sys
from collections.abc import Callable
from importlib import import_module

GradeFunction = Callable[[str, str], tuple[float, str | None]]
"""(gold, response) -> (score, extracted answer)."""
PROFILES = {
    "math-verify": ("math_verify", "grade"),
    "math-verify-clean": ("math_verify", "grade_cleaned"),
    "official-simplerl": ("simplerl", "grade"),
}
"""Scorer -> module next to this one, and function."""
WITH_UNITS = {"official-simplerl": ("simplerl", "grade_with_units")}
"""The same for problems whose answers keep their units, as those of Minerva."""


def main(profile: str, units: bool) -> None:
    """Grade until the input ends."""
    module, name = (PROFILES | WITH_UNITS if units else PROFILES)[profile]
    grade: GradeFunction = getattr(import_module(f"unidpo_mm_eval.scorers.math.{module}"), name)
    output, sys.stdout = sys.stdout, sys.stderr  # the libraries may print
    print(json.dumps("ready"), file=output, flush=True)
    for line in sys.stdin:
        gold, response = json.loads(line)
        try:
            score, answer = grade(gold, response)
            result = {"score": score, "answer": answer}
        except Exception as error:  # parsers raise any exception: the answer is not understood
            result = {"score": 0.0, "answer": None, "note": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), file=output, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], "units" in sys.argv[2:])

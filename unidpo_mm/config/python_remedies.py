"""Rewrite remedies that name recipe keys for data sets passed in Python."""

import re
from importlib.resources import files

import yaml

from ..errors import Problem

__all__ = ["IN_MEMORY_PREFIX", "in_python"]

IN_MEMORY_PREFIX = "data set '"
"""Prefix of `Problem.where` for rows that were passed in Python."""

REMEDIES: list[dict[str, str]] = yaml.safe_load(
    (files(__package__) / "tables" / "python_remedies.yaml").read_text(encoding="utf-8")
)

RECIPE_KEYS = re.compile(
    r"\bdata\.(?:images\.)?(max_length|length_policy|preflight|max_skipped_fraction)\b"
)
"""Recipe keys whose last part is the name in Python."""


def in_python(problem: Problem) -> Problem:
    """Return a problem with a remedy for Python, if its row was passed in Python."""
    if not problem.where.startswith(IN_MEMORY_PREFIX):
        return problem
    remedy = problem.remedy
    for wording in REMEDIES:
        remedy = remedy.replace(wording["recipe"], wording["python"])
    return Problem(problem.where, problem.message, RECIPE_KEYS.sub(r"\1", remedy))

"""Rewrite remedies that name recipe keys for data sets passed in Python."""

import re

from ..errors import Problem

__all__ = ["IN_MEMORY_PREFIX", "in_python"]

IN_MEMORY_PREFIX = "data set '"
"""Prefix of `Problem.where` for rows that were passed in Python."""

REMEDIES = (
    (
        "Set the source's 'images' to the directory that contains all images, or its "
        "'images_outside' to true",
        "Set `images` of UniDPOConfig to the directory that contains all images",
    ),
    (
        "Correct the path, or set the source's 'images' to the directory of the images",
        "Correct the path, or set `images` of UniDPOConfig to the directory of the images",
    ),
    (
        "Download the image and use its path, or set the source's 'fetch_images' to true",
        "Download the image and use its path",
    ),
    ("Scale it down, or increase data.images.max_pixels", "Scale it down"),
    (
        "set the source's scores.ties to drop",
        "set `scores` of UniDPOConfig to {'ties': 'drop'}",
    ),
    (
        "set the source's scores.missing to a quality weight such as 0.5",
        "set `scores` of UniDPOConfig to {'missing': 0.5}",
    ),
    (
        "Map the columns in the source's 'columns', or remove 'format' to detect it",
        "Rename the columns",
    ),
    (
        "Map the columns in the source's 'columns', such as columns: {prompt: question}, or set "
        "'format' (unidpo-mm list formats)",
        "Rename the columns, for example with Dataset.rename_columns({'question': 'prompt'})",
    ),
    (
        "or map its column in the source's 'columns', such as columns: {prompt: question}",
        "or rename its column to 'prompt'",
    ),
)
"""(wording for recipes, wording for Python); tests check every remedy for bad rows."""

RECIPE_KEYS = re.compile(
    r"\bdata\.(?:images\.)?(max_length|length_policy|preflight|max_skipped_fraction)\b"
)
"""Recipe keys whose last part is the name in Python."""


def in_python(problem: Problem) -> Problem:
    """Return a problem with a remedy for Python, if its row was passed in Python."""
    if not problem.where.startswith(IN_MEMORY_PREFIX):
        return problem
    remedy = problem.remedy
    for recipe, python in REMEDIES:
        remedy = remedy.replace(recipe, python)
    return Problem(problem.where, problem.message, RECIPE_KEYS.sub(r"\1", remedy))

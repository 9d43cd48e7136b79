"""VLFeedback: a prompt, an image and completions rated in three aspects, 1 to 5 each.

The score of a response is the mean of its ratings. A response without a rating in one of the
aspects ("N/A", as for many refusals) has no score and is in no pair, as in the work of the data
set's authors; such responses are counted. Pairs are formed by the options of the source.
"""

import re
from collections.abc import Mapping
from statistics import mean
from typing import Any

from ...records import PreferenceRow
from . import Format
from ._completions import read_completions
from ._reader import COMMON, RowReader, parser

__all__ = ["FORMAT"]

RATING = re.compile(r"[0-9]+(\.[0-9]+)?")
UNRATED = ("N/A", "None", "")


def _read(row: RowReader) -> PreferenceRow:
    row.read_prompt()
    return row.ranked(read_completions(row, "annotations", _score, allow_unrated=True))


def _score(annotations: Any) -> Any:
    """Return the mean of the ratings, `None` if one is missing, or an invalid one unchanged."""
    if not isinstance(annotations, Mapping):
        return None
    ratings = [str(a.get("Rating")) for a in annotations.values() if isinstance(a, Mapping)]
    counted = [rating for rating in ratings if rating not in UNRATED]
    invalid = [rating for rating in counted if not RATING.fullmatch(rating)]
    if invalid:
        return invalid[0]
    return mean(map(float, counted)) if counted and len(counted) == len(ratings) else None


FORMAT = Format(
    name="vlfeedback",
    required=frozenset({"prompt", "completions"}),
    columns=COMMON | {"prompt", "completions", "img_path"},
    parse=parser(_read, images=("images", "image", "img_path")),
)

"""VLFeedback: a prompt, an image and completions rated in three aspects, 1 to 5 each.

The score of an answer is the mean of its ratings. An answer that the judge left unrated in an
aspect ("N/A", as for many refusals) has no score and makes no pair, as the data set's authors do
it; such answers are counted. Which answers make a pair is a setting of the source.
"""

import re
from collections.abc import Mapping
from statistics import mean
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._completions import completions_of
from ._reader import COMMON, RowReader

__all__ = ["FORMAT"]

RATING = re.compile(r"[0-9]+(\.[0-9]+)?")
UNRATED = ("N/A", "None", "")


def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
    """Return the row of a record; raises DataError with all its problems."""
    row = RowReader(record, context, images=("images", "image", "img_path"))
    row.prompt()
    return row.ranked(completions_of(row, "annotations", _score, some_unrated=True))


def _score(annotations: Any) -> Any:
    """Return the mean of the ratings, None if one is missing; a wrong one is returned as it is."""
    if not isinstance(annotations, Mapping):
        return None
    ratings = [str(one.get("Rating")) for one in annotations.values() if isinstance(one, Mapping)]
    counted = [rating for rating in ratings if rating not in UNRATED]
    wrong = [rating for rating in counted if not RATING.fullmatch(rating)]
    if wrong:
        return wrong[0]
    return mean(map(float, counted)) if counted and len(counted) == len(ratings) else None


FORMAT = Format(
    name="vlfeedback",
    required=frozenset({"prompt", "completions"}),
    known=COMMON | {"prompt", "completions", "img_path"},
    parse=parse,
    data_sets=("VLFeedback",),
)

"""Select the rows that `data convert` writes, so that the output passes `data check`."""

from collections.abc import Sequence

from ..errors import Problem
from ..records import PreferenceRow
from ..training.configured_loss import configured_loss
from .images import inspect_images
from .run import CheckOptions

__all__ = ["writable_rows"]


def writable_rows(
    rows: Sequence[PreferenceRow], options: CheckOptions
) -> tuple[list[PreferenceRow], list[Problem], dict[int, list[Problem]]]:
    """Return the rows with valid images, the problems of the others, and missing scores and pairs.

    Whether scores and pairs are missing depends on the loss, as in `data check`. The last value
    maps the index of a returned row to these problems.
    """
    inspection = inspect_images(rows)
    intact = [row for number, row in enumerate(rows) if number not in inspection.broken]
    loss = configured_loss(options.args)
    # the output is a single source: if one row has scores, all rows need them
    scored = any(response.score is not None for row in intact for response in row.responses)
    if options.any_loss and not scored:
        return intact, inspection.problems, {}
    problems_by_row = {number: loss.check_rows([row]) for number, row in enumerate(intact)}
    missing = {number: problems for number, problems in problems_by_row.items() if problems}
    return intact, inspection.problems, missing

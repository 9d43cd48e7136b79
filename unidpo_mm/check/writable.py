"""Which rows may be written, so that what `data convert` writes passes `data check`."""

from collections.abc import Sequence

from ..errors import Problem
from ..records import PreferenceRow
from ..training.configured_loss import configure_loss
from .images import look_at_images
from .run import CheckSettings

__all__ = ["writable_rows"]


def writable_rows(
    rows: Sequence[PreferenceRow], settings: CheckSettings
) -> tuple[list[PreferenceRow], list[Problem], dict[int, list[Problem]]]:
    """Return the rows whose images can be opened, the problems of the others, and what rows lack.

    What they lack (scores, pairs) depends on the loss: `data check` refuses it with the same one.
    The last value has the problems of each such row by its index.
    """
    image_report = look_at_images(rows)
    intact = [row for number, row in enumerate(rows) if number not in image_report.broken]
    loss = configure_loss(settings.loss, settings.loss_parameters, settings.loss_by_source)
    # written, they are one source: a score in one of them makes scores expected in all
    scored = any(response.score is not None for row in intact for response in row.responses)
    if not (scored or settings.loss_named):
        return intact, image_report.problems, {}
    checked = {number: loss.check_rows([row]) for number, row in enumerate(intact)}
    lacking = {number: problems for number, problems in checked.items() if problems}
    return intact, image_report.problems, lacking

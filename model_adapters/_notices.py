"""Warnings about the rendering of rows, once per data source instead of once per row."""

import logging
from typing import Any

from torch.utils.data import get_worker_info

from unidpo_mm.records import PreferenceRow

__all__ = ["Notices"]

logger = logging.getLogger(__name__)


class Notices:
    """A log of warnings that reports each kind once per data source."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def warn(self, kind: str, row: PreferenceRow, message: str, *args: Any) -> None:
        """Log a warning unless its kind was already logged for the row's data source.

        Of several data-loading workers only the first one logs. Rows without a place in the data,
        such as fillers, are ignored.

        Args:
            kind: A name for the warning.
            row: The row.
            message: The warning, in the format of `logging`.
            *args: The values in it.
        """
        worker = get_worker_info()
        if (kind, row.source) in self._logged or (worker is not None and worker.id != 0):
            return
        if row.where == row.source:
            return
        self._logged.add((kind, row.source))
        logger.warning("data source '%s': " + message, row.source, *args)

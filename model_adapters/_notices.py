"""Warnings about how rows are rendered, once per kind and source instead of once per row."""

import logging
from typing import Any

from torch.utils.data import get_worker_info

__all__ = ["Notices"]

logger = logging.getLogger(__name__)


class Notices:
    """Logs each kind of warning once per data source."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def warn(self, kind: str, source: str, message: str, *args: Any) -> None:
        """Log a warning unless its kind was logged for this source before.

        Of several data-loading workers only the first one logs.

        Args:
            kind: A name for the warning.
            source: The data source of the row.
            message: The warning, in the format of `logging`.
            *args: The values in it.
        """
        worker = get_worker_info()
        if (kind, source) in self._logged or (worker is not None and worker.id != 0):
            return
        self._logged.add((kind, source))
        logger.warning("data source '%s': " + message, source, *args)

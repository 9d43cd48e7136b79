"""`unidpo-mm data check`: report the contents of preference data and its problems for a run."""

from .report import CheckReport
from .run import CheckOptions, check_data

__all__ = ["CheckOptions", "CheckReport", "check_data"]

"""`unidpo-mm data check`: report the contents of preference data and its problems for a run."""

from .report import CheckReport
from .run import CheckSettings, check_data

__all__ = ["CheckReport", "CheckSettings", "check_data"]

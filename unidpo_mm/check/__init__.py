"""`unidpo-mm data check`: what is in preference data, and what a run would make of it."""

from .report import CheckReport
from .run import CheckSettings, check_data

__all__ = ["CheckReport", "CheckSettings", "check_data"]

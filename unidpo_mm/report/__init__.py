"""The record of a run as sections, for its report and its model card."""

from .page import report_page
from .record import RunRecord

__all__ = ["RunRecord", "report_page"]

"""Write what a finished run shows: `made.json` and `made.html`."""

from typing import Any

from .load import Making
from .page import write_page
from .record import write_record
from .response_table import table_of
from .run import Made, groups_of
from .run_warnings import run_warnings

__all__ = ["write_files"]


def write_files(making: Making, made: Made) -> dict[str, Any]:
    """Write `made.json` and `made.html` of a finished run; return the content of the former."""
    with made.timing.stage("page", repeated=True) as watch:
        table = table_of(making, made)
        warnings = run_warnings(making, table, groups_of(making, made.prompts.items), made.rows)
        record = write_record(making, made, warnings)
        write_page(making, made, table, record)
        watch.add(len(made.prompts.items))
    return record

"""A pair with prompt, chosen and rejected, as in TRL and the official text and math data."""

from collections.abc import Mapping
from typing import Any

from ...records import PreferenceRow
from . import Context, Format
from ._reader import COMMON, SCORES, RowReader

__all__ = ["FORMAT", "pair_format"]


def pair_format(name: str, prompt: str, data_sets: tuple[str, ...]) -> Format:
    """Return a format of pairs.

    Args:
        name: Name of the format.
        prompt: Column of the prompt.
        data_sets: Public data sets in this format.
    """

    def parse(record: Mapping[str, Any], context: Context) -> PreferenceRow:
        row = RowReader(record, context)
        row.read_prompt(prompt)
        row.extend_prompt("chosen", "rejected")
        chosen = row.response("chosen", "score_chosen")
        return row.pair(chosen, row.response("rejected", "score_rejected"))

    columns = frozenset({prompt, "chosen", "rejected"})
    return Format(
        name=name,
        required=columns,
        columns=COMMON | SCORES | columns,
        parse=parse,
        data_sets=data_sets,
    )


FORMAT = pair_format(
    "pairs", "prompt", ("UltraFeedback binarized", "MM-RLHF", "official Uni-DPO, text and math")
)

"""A pair with prompt, chosen and rejected: TRL, MM-RLHF, the official text and math data."""

from ...records import PreferenceRow
from . import Format
from ._dialogues import extend_prompt
from ._reader import COMMON, SCORES, RowReader, parser

__all__ = ["FORMAT", "pair_format"]


def pair_format(name: str, prompt: str) -> Format:
    """Return a format of pairs whose prompt is in the column `prompt`."""

    def read(row: RowReader) -> PreferenceRow:
        row.read_prompt(prompt)
        extend_prompt(row, "chosen", "rejected")
        chosen = row.response("chosen", "score_chosen")
        return row.pair(chosen, row.response("rejected", "score_rejected"))

    columns = frozenset({prompt, "chosen", "rejected"})
    return Format(
        name=name, required=columns, columns=COMMON | SCORES | columns, parse=parser(read)
    )


FORMAT = pair_format("pairs", "prompt")

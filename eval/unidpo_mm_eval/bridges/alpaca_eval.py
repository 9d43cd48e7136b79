"""AlpacaEval: a list of instructions with outputs, which its command compares by a judge."""

import json
from collections.abc import Sequence

from unidpo_mm.errors import DataError, Problem

from . import Asked, Bridge

__all__ = ["BRIDGE"]


def export(asked: Asked) -> Sequence[str]:
    """Writes one object for each instruction; all of them have to be answered."""
    problems, rows = [], []
    for own, record in zip(asked.ids, asked.records, strict=True):
        if "instruction" not in record:
            found = "there is no instruction"
            problems.append(Problem(f"row '{own}'", found, "Give its data, alpaca_eval.json"))
        elif own not in asked.responses:
            problems.append(Problem(f"row '{own}'", "it has no prediction", "Answer every row"))
        else:
            kept = {name: record[name] for name in ("dataset", "instruction") if name in record}
            rows.append(kept | {"output": asked.responses[own], "generator": asked.model})
    if problems:
        raise DataError(problems)
    asked.out.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return []


BRIDGE = Bridge(
    name="alpaca_eval",
    title="AlpacaEval",
    endings=(".json",),
    export=export,
    answers_only=True,
)

"""OlympiadBench: open text problems with a final answer."""

from ..data.json_files import JsonRow
from ._math import math_benchmark


def first_answer(row: JsonRow) -> str:
    """Return the first of a row's final answers; the official code ignores the others."""
    answers = row.record.get("final_answer")
    if isinstance(answers, list) and answers and isinstance(answers[0], str):
        return answers[0].strip().strip("$").strip()
    row.note("final_answer", f"got {str(answers)[:60]}", "Use a list of strings")
    return ""


BENCHMARK = math_benchmark("olympiadbench", "OlympiadBench", rows=675, gold=first_answer)

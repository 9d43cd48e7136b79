"""OlympiadBench: open problems in text, with a final answer."""

from ..data.json_files import JsonRow
from ._math import math_benchmark

__all__ = ["BENCHMARK"]


def first_answer(row: JsonRow) -> str:
    """Returns the first of a row's final answers; the official code ignores the others."""
    answers = row.record.get("final_answer")
    if isinstance(answers, list) and answers and isinstance(answers[0], str):
        return answers[0].strip().strip("$").strip()
    row.note("final_answer", f"found {str(answers)[:60]}", "Give a list of texts")
    return ""


BENCHMARK = math_benchmark("olympiadbench", "OlympiadBench", rows=675, gold=first_answer)

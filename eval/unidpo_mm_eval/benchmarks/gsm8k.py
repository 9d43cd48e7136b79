"""GSM8K: grade-school word problems."""

from ._math import after_marks, math_benchmark

BENCHMARK = math_benchmark("gsm8k", "GSM8K test", rows=1319, gold=after_marks)

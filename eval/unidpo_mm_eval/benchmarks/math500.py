"""MATH-500: competition problems."""

from ._math import last_box, math_benchmark

BENCHMARK = math_benchmark("math500", "MATH-500", rows=500, gold=last_box)

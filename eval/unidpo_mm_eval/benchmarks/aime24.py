"""AIME 2024: thirty problems, so that an interval is some 15 points wide to each side."""

from ._math import field_of, math_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = math_benchmark("aime24", "AIME 2024", rows=30, gold=field_of("answer"))

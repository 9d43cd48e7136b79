"""AMC 2023: forty problems."""

from ._math import field_of, math_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = math_benchmark("amc23", "AMC 2023", rows=40, gold=field_of("answer"))

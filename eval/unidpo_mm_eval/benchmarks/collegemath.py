"""CollegeMath: textbook problems."""

from ._math import field_of, math_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = math_benchmark("collegemath", "CollegeMath", rows=2818, gold=field_of("answer"))

"""CollegeMath: textbook problems."""

from ._math import math_benchmark

BENCHMARK = math_benchmark("collegemath", "CollegeMath", rows=2818)

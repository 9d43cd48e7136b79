"""AMC 2023: forty problems."""

from ._math import math_benchmark

BENCHMARK = math_benchmark("amc23", "AMC 2023", rows=40)

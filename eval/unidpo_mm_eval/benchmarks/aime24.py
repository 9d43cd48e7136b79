"""AIME 2024: thirty problems, so intervals extend about 15 points to each side."""

from ._math import math_benchmark

BENCHMARK = math_benchmark("aime24", "AIME 2024", rows=30)

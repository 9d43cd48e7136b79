"""GaoKao 2023 in English."""

from ._math import math_benchmark

BENCHMARK = math_benchmark("gaokao2023en", "GaoKao 2023, English", rows=385)

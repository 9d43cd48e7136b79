"""GaoKao 2023 in English."""

from ._math import field_of, math_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = math_benchmark(
    "gaokao2023en", "GaoKao 2023, English", rows=385, gold=field_of("answer")
)

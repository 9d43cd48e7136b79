"""Minerva: problems of undergraduate science."""

from ._math import last_box, math_benchmark

BENCHMARK = math_benchmark("minerva", "Minerva Math", rows=272, gold=last_box, units=True)

"""AI2D test: diagrams from school science."""

from ._options import option_benchmark

BENCHMARK = option_benchmark("ai2d", "AI2D test", file="AI2D_TEST.tsv", rows=3088)

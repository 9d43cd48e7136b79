"""RealWorldQA: large photographs, mostly from cars."""

from ._options import option_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = option_benchmark("realworldqa", "RealWorldQA", file="RealWorldQA.tsv", rows=765)

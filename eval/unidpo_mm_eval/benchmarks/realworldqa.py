"""RealWorldQA: large photographs, mostly from cars."""

from ._options import option_benchmark

BENCHMARK = option_benchmark("realworldqa", "RealWorldQA", file="RealWorldQA.tsv", rows=765)

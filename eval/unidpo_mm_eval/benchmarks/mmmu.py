"""MMMU, validation: college questions with several pictures.

VLMEvalKit's table turns open questions into options, A the answer and B "Other Answers". The
official parser and lmms-eval's choose at random where they find nothing; that is never done here.
"""

from ._options import option_benchmark

__all__ = ["BENCHMARK"]

BENCHMARK = option_benchmark("mmmu", "MMMU validation", file="MMMU_DEV_VAL.tsv", rows=900)

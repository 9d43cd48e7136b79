"""Preferences without a judge: does a model find the better answer likelier?

pairs.py     files of pairs become rows of the core, with the groups they are reported by
rewards.py   log-probabilities of both answers, prompt and pictures once for both
metrics.py   accuracy, margins, AUC, what length does to them
run.py       the flow: score pairs, merge, write a result that `eval compare` reads
"""

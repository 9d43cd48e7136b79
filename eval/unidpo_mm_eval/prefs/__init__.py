"""Preferences without a judge: does a model assign the better response a higher probability?

logps.py       log-probs of both responses; the prompt and its images run once for both
evaluation.py  `eval prefs`: compute log-probs, write a result that `eval compare` reads
"""

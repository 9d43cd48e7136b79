"""The reference model: the policy as it was before training.

Most losses compare the policy with it. `kinds.py` has one class per way to run it, and chooses the
cheapest that is exact; `cached.py` computes its log-probs once and reads them from disk afterwards.
"""

__all__: list[str] = []

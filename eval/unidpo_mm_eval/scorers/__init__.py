"""Rule-based scorers: pure functions that extract an answer from a response and compare it.

Each function states which toolkit or script it follows; `docs/evaluation.md` lists the differences.
"""

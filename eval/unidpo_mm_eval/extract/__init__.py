"""Rules that turn a response into an answer, and two answers into a score. Pure functions of text.

Every rule states which kit or script it follows; how they differ is in `docs/evaluation.md`.
"""

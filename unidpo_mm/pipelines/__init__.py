"""Pipelines that make preference data: prompts, responses, scores, pairs.

`recipe.py` declares the settings of such a recipe; `run.py` runs its stages.
"""

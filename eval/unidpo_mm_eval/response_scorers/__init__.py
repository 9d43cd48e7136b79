"""Scorers of responses for `unidpo-mm data make` that use the graders and judges of evaluation."""

PLUGIN_API = 1

"""Scorers of responses, one file each."""

"""Readers of benchmark data and of predictions, with every problem of a file at once."""

"""Benchmark data and predictions: the records, and readers that report every problem at once."""

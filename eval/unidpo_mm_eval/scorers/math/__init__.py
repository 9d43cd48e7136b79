"""Grading of math answers, in worker processes that are killed when an answer takes too long."""

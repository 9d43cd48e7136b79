"""Grades answers to math problems, in worker processes that are killed when one takes too long."""

"""Metrics as formulas over sums, their confidence intervals, and paired tests of two results."""

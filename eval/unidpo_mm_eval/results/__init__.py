"""Results: grading of predictions, result files, and comparisons of several results."""

"""scorers of the evaluation package."""

"""scorers/math of the evaluation package."""

"""results of the evaluation package."""

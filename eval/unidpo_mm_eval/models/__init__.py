"""models of the evaluation package."""

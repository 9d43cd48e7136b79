"""data of the evaluation package."""

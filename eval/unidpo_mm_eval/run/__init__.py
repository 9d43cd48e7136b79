"""run of the evaluation package."""

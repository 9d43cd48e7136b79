"""What is computed once and kept on disk: reference log-probabilities, keyed by their content."""

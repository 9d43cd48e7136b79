"""From a checkpoint to log-probabilities: loading, parts, scoring, references."""

__all__: list[str] = []

"""Models that generate responses: checkpoints in this process, and servers."""

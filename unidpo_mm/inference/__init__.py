"""Generate responses, in this process or with a server; for training, evaluation and new data."""

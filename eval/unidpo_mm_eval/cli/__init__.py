"""The commands of `unidpo-mm eval`."""

"""`unidpo-mm eval`: one file a command."""

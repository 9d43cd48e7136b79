"""The command line: one module per command, which imports torch only when it is needed."""

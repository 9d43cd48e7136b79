"""One file a benchmark: how its data are read, how a response scores, and which metrics come of it.

A new file here is a new benchmark; its name is the benchmark's. Files that begin with an underscore
are shared by several.
"""

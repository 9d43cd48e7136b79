"""Sweeps: train variants ("arms") of one recipe with several seeds and compare them in a table.

`plan` reads the sweep file, `runner` defines what a run is, `run` runs every arm with every seed
and skips finished runs, `table` shows means and standard errors, and `command` combines them.
"""

"""Sweeps: one recipe, several arms of changed keys, several seeds, one table.

`plan` reads the file, `runner` says what a run is, `run` goes through arms and seeds and skips what
is done, `table` shows means and standard errors; `command` is all of it, from file to table.
"""

"""Checks of a run before data and model are read: arguments, launcher, packages, files."""

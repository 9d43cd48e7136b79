"""Migration: turn the configuration of another framework into a recipe and a list of notes.

Each framework has one module (`trl`, `llama_factory`, `official`) with a table of its keys and
with converters for keys that only make sense together; `trainer_arguments` has those of
transformers' Trainer, which all frameworks accept. `migrate` recognizes the framework, applies the
table and checks the recipe. Every key of a file ends up in the recipe or in a note. `page` writes
the tables into docs/migrating.md.
"""

from .conversion import Note
from .migration import Migration, migrate

__all__ = ["Migration", "Note", "migrate"]

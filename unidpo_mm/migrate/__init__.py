"""Migration: a configuration of another framework becomes a recipe and a list of notes.

`convert` recognises where a file comes from and carries its keys over by the table of that origin
(`trl`, `official_text` and the module of the third, by its name); `arguments` holds the keys of
transformers' Trainer, which all share. A `Draft` keeps account: every key of the file is in the
recipe or in a note. `page` writes the same tables into docs/coming_from.md.
"""

from .convert import Migration, migrate
from .draft import Note

__all__ = ["Migration", "Note", "migrate"]

"""Files that commands write: checked before anything is read, and never in place of a source."""

import os
from collections.abc import Sequence
from pathlib import Path

import typer

__all__ = ["check_writable", "keep_sources", "write"]

LONGEST_NAME = 255
"""Bytes that the name of a file has at most."""


def check_writable(path: Path | None, option: str, *, make: bool = False) -> None:
    """Refuse a file that could not be written, before anything is read."""
    if path is None:
        return
    text = None
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in path.parts):
        text = "no file has a name as long"
    elif path.is_dir():
        text = f"'{path}' is a folder"
    elif path.parent.exists() and not path.parent.is_dir():
        text = f"'{path.parent}' is no folder"
    elif not make and not path.parent.exists():
        text = f"the folder '{path.parent}' is not there"
    if text is not None:
        raise typer.BadParameter(text, param_hint=option)


def keep_sources(path: Path | None, option: str, sources: Sequence[str]) -> None:
    """Refuse to write over what is read.

    Args:
        path: What is to be written.
        option: Which option says so.
        sources: What is read; of a folder, and of the folder of a registry, every file may be.
    """
    if path is None or not path.exists():
        return
    for source in map(Path, sources):
        if not _exists(source):
            continue
        folder = source.parent if source.name == "dataset_info.json" else source
        inside = folder.is_dir() and path.resolve().is_relative_to(folder.resolve())
        if inside or path.samefile(source):
            text = f"'{path}' is one of the sources: name another file"
            raise typer.BadParameter(text, param_hint=option)


def write(path: Path, text: str, option: str) -> None:
    """Write a file; one that cannot be written is a mistake in the option that names it."""
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        said = f"'{path}' cannot be written ({error})"
        raise typer.BadParameter(said, param_hint=option) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False

"""Check and write the output files of commands, which never replace an input file."""

import os
from collections.abc import Sequence
from pathlib import Path

import typer

__all__ = ["check_writable", "keep_sources", "write"]

MAX_NAME = 255
"""Maximum number of bytes of a file name."""


def check_writable(
    path: Path | None, option: str, *, make: bool = False, replace: bool = True
) -> None:
    """Refuse an output file that cannot be written, before any input is read.

    Args:
        path: The file; None: there is nothing to check.
        option: The option that names it, for the message.
        make: Whether the command creates missing directories.
        replace: Whether the command may replace an existing file.

    Raises:
        typer.BadParameter: If it cannot be written.
    """
    if path is None:
        return
    text = None
    if any(len(os.fsencode(part)) > MAX_NAME for part in path.parts):
        text = "file name too long"
    elif not replace and path.exists():
        text = f"'{path}' already exists: choose another file or delete it"
    elif path.is_dir():
        text = f"'{path}' is a directory"
    elif path.parent.exists() and not path.parent.is_dir():
        text = f"'{path.parent}' is not a directory"
    elif not make and not path.parent.exists():
        text = f"the directory '{path.parent}' does not exist"
    if text is not None:
        raise typer.BadParameter(text, param_hint=option)


def keep_sources(path: Path | None, option: str, sources: Sequence[str]) -> None:
    """Refuse an output file that would replace an input file.

    Args:
        path: The output file.
        option: The option that names it, for the message.
        sources: The input files. All files in an input directory, or in the directory of a
            `dataset_info.json`, count as input files.

    Raises:
        typer.BadParameter: If it would.
    """
    if path is None or not path.exists():
        return
    for source in map(Path, sources):
        if not _exists(source):
            continue
        folder = source.parent if source.name == "dataset_info.json" else source
        inside = folder.is_dir() and path.resolve().is_relative_to(folder.resolve())
        if inside or path.samefile(source):
            text = f"'{path}' is an input file: choose another file"
            raise typer.BadParameter(text, param_hint=option)


def write(path: Path, text: str, option: str) -> None:
    """Write a file.

    Raises:
        typer.BadParameter: If it cannot be written, with the option that names it.
    """
    try:
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        text = f"'{path}' cannot be written ({error})"
        raise typer.BadParameter(text, param_hint=option) from error


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # an invalid file name
        return False

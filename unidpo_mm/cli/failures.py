"""Report errors: a message for mistakes of the user, and a log file for all other errors."""

import errno
import os
import platform
import sys
import tempfile
import time
import traceback
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..errors import CONTROL, UniDPOError
from ..plugin_errors import failed_line
from ..secrets import mask_text
from .ranks import print_once

__all__ = ["CRASHED", "EXIT_CODE", "report_crash", "report_error"]

EXIT_CODE = 2
"""Exit code of errors that a user can fix, as for an invalid command line."""

CRASHED = 1
"""Exit code of an unexpected error."""

ACTIVITIES = {
    ("config/load.py", "load_recipe"): "reading the recipe",
    ("config/checks/recipe.py", "check_machine"): "checking the training arguments",
    ("data/load.py", "read_sources"): "reading the data",
    ("config/from_recipe.py", "config_of"): "checking the training arguments",
    ("training/prepare.py", "prepare"): "checking the data",
    ("modeling/load.py", "load_family_and_adapter"): "loading the processor of the model",
    ("modeling/load.py", "load_weights"): "loading the weights of the model",
    ("training/setup.py", "prepare_model"): "preparing the model",
    ("training/run_reference.py", "build_run_reference"): "preparing the reference",
    ("training/startup_checks.py", "check_start"): "checking the layout of batches",
    ("training/run_record.py", "write_record"): "writing the record of the run",
    ("transformers/trainer.py", "train"): "training",
    ("transformers/trainer.py", "_save_checkpoint"): "saving a checkpoint",
    ("transformers/trainer.py", "save_model"): "saving the model",
    ("transformers/trainer.py", "evaluate"): "evaluating",
    ("migrate/migration.py", "migrate"): "converting a configuration",
    ("sweep/run.py", "run_sweep"): "running a sweep",
    ("inference/chat.py", "open_chat"): "loading the model",
    ("inference/conversation.py", "respond"): "generating a response",
    ("check/run.py", "check_data"): "checking the data",
}
"""File and function of a frame -> its activity; the innermost frame that is listed is reported."""

VERSIONS = ("unidpo-mm", "torch", "transformers", "peft", "accelerate", "datasets")


def report_error(error: UniDPOError) -> int:
    """Print an error that the user can fix, once for all processes; return the exit code."""
    print_once(mask_text(str(error)), _print)
    return error.exit_code


def report_crash(error: BaseException, arguments: list[str]) -> int:
    """Print an unexpected error in one line, and write its traceback to a file.

    Args:
        error: The exception.
        arguments: The command line, for the file.

    Returns:
        The exit code: `EXIT_CODE` if the error arose in a plugin file of the user.
    """
    text = " ".join(mask_text(CONTROL.sub(" ", str(error))).split())
    line = f"{type(error).__name__} while {activity(error, arguments)}"
    line += f": {text[:500].rstrip('.')}" if text else ""
    path, hint = _write_log(error, arguments), _hint(error)
    place = "" if hint else failed_line(error)
    if place:  # code of the user, who can correct it
        line, hint = f"{mask_text(place)}: {line}", "Correct the file"
    line = f"{line}. {hint}." if hint else f"{line}."
    print_once(line, lambda message: _print(f"{message} The traceback is in {path}"))
    return EXIT_CODE if place else CRASHED


def activity(error: BaseException, arguments: list[str]) -> str:
    """Return the activity during which an exception was raised."""
    current = "running unidpo-mm " + next((word for word in arguments if word[:1] != "-"), "")
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        current = ACTIVITIES.get((f"{path.parent.name}/{path.name}", frame.name), current)
    return current.strip()


def _hint(error: BaseException) -> str:
    """Return the remedy for an error of the machine, such as a full disk; empty if unknown."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space and start the same command again"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            "Reduce per_device_train_batch_size or data.max_length, or set train.memory=auto, "
            "which checkpoints as many layers as necessary"
        )
    return ""


def _write_log(error: BaseException, arguments: list[str]) -> str:
    """Write traceback, command and versions to a file; return its path."""
    lines = [
        f"time: {time.strftime('%Y-%m-%d %H:%M:%S')}",
        f"command: unidpo-mm {' '.join(arguments)}",
        f"directory: {os.getcwd()}",  # noqa: PTH109 - Path.cwd() is the same
        f"rank: {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{name}: {_version(name)}" for name in VERSIONS),
        "",
        *traceback.format_exception(error),
    ]
    text = mask_text("\n".join(lines))
    try:
        handle, path = tempfile.mkstemp(prefix="unidpo-mm-error-", suffix=".log")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123
            file.write(text)
    except OSError:
        sys.stderr.write(text)
        return "the lines above"
    return path


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _print(text: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), text))

"""The directory of an export: complete, or absent."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..atomic import umask
from ..errors import ModelError, Problem

__all__ = ["check_output", "complete_or_absent"]


def check_output(output: Path) -> None:
    """Raise ModelError unless the output does not exist or is an empty directory."""
    where = "--output"
    if output.is_dir():
        if any(output.iterdir()):
            problem = f"'{output}' is not empty"
            raise ModelError(Problem(where, problem, "Choose another directory, or delete it"))
    elif output.exists() or output.is_symlink():
        problem = f"'{output}' already exists and is not a directory"
        raise ModelError(Problem(where, problem, "Choose another directory"))


@contextlib.contextmanager
def complete_or_absent(output: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes `output` if the body succeeds."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        directory.chmod(0o777 & ~umask())
    except OSError as error:
        raise _not_written(output, error) from error
    try:
        yield directory
        check_output(output)
        directory.replace(output)
    except OSError as error:
        raise _not_written(output, error) from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _not_written(output: Path, error: OSError) -> ModelError:
    problem = f"'{output}' cannot be written ({error.strerror or error})"
    return ModelError(Problem("--output", problem, "Choose a writable directory with space"))

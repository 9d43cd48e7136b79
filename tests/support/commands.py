"""Run a command in this process, with errors reported as `unidpo_mm.cli.main.main` reports them."""

from dataclasses import dataclass

from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app
from unidpo_mm.errors import UniDPOError

__all__ = ["Finished", "run_command"]


@dataclass(frozen=True)
class Finished:
    """The exit code of a command, and its stdout and stderr together."""

    exit_code: int
    output: str


def run_command(*arguments: str) -> Finished:
    """Run `unidpo-mm` with arguments."""
    result = CliRunner().invoke(build_app(arguments), list(arguments))
    error = result.exception
    if isinstance(error, UniDPOError):
        return Finished(error.exit_code, f"{result.output}\nerror: {error}\n")
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return Finished(result.exit_code, result.output)

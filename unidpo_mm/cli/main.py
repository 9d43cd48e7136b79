"""The command `unidpo-mm`: assemble the commands, and print errors without a traceback.

A command of another package, such as `demo`, is only imported if it is called. Its line in the list
of commands is read from its source.
"""

import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import UniDPOError
from ..extras import missing_package
from ..plugins import user_commands
from .cache import cache
from .chat import chat
from .data import data
from .export import export
from .failures import EXIT_CODE, report_crash, report_error
from .init import init
from .ledger import ledger
from .list import show_plugins
from .make import make
from .migrate import migrate
from .ranks import quiet_other_processes
from .replay import replay
from .rounds import rounds
from .summaries import first_line
from .sweep import sweep
from .train import train

__all__ = ["EXIT_CODE", "build_app", "main"]


COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "init": (init, "unidpo-mm init pairs.jsonl --model org/model"),
    "train": (train, "unidpo-mm train recipe.yaml train.learning_rate=1e-6 --dry-run"),
    "rounds": (rounds, "unidpo-mm rounds rounds.yaml"),
    "sweep": (sweep, "unidpo-mm sweep sweep.yaml --seeds 0,1,2"),
    "migrate": (migrate, "unidpo-mm migrate llama_factory.yaml --output recipe.yaml"),
    "replay": (replay, "unidpo-mm replay out/nonfinite-step-120"),
    "chat": (chat, "unidpo-mm chat out --image cat.png --before"),
    "export": (export, "unidpo-mm export out --output exported --merge"),
    "list": (show_plugins, "unidpo-mm list losses"),
}
"""Command -> its function and an example for its help."""


def main() -> None:
    """Run the command line of this process; the entry point of `unidpo-mm`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names can contain unpaired surrogates
            stream.reconfigure(errors="backslashreplace")
    quiet_other_processes()
    arguments = sys.argv[1:]
    try:
        app = build_app(arguments)
        groups = {group.name for group in app.registered_groups}
        if not arguments or (len(arguments) == 1 and arguments[0] in groups):
            arguments = [*arguments, "--help"]  # a command without arguments is a request for help
        app(arguments, prog_name="unidpo-mm")
    except UniDPOError as error:
        sys.exit(report_error(error))
    except ImportError as error:
        problem = missing_package(error, _command(arguments))
        if problem is None:
            sys.exit(report_crash(error, arguments))
        sys.exit(report_error(UniDPOError(problem)))
    except Exception as error:
        sys.exit(report_crash(error, arguments))


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Return the command line application.

    Args:
        arguments: The arguments of the call; the first that is not an option is the command.
    """
    app = typer.Typer(
        help="Preference tuning of vision-language and text models with Uni-DPO.",
        epilog="Example: unidpo-mm train quickstart/uni_dpo.yaml --dry-run",
        no_args_is_help=True,
        rich_markup_mode=None,  # its tables truncate option names at 80 columns
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=app.info.help)(_options)
    for name, (command, example) in COMMANDS.items():
        app.command(name, epilog=f"Example: {example}")(command)
    data.command("make", epilog="Example: unidpo-mm data make make.yaml --pilot 16")(make)
    app.add_typer(data, name="data")
    app.add_typer(cache, name="cache")
    app.add_typer(ledger, name="ledger")
    called = _command(arguments)
    for name, point in sorted(user_commands().items()):
        if name != called:
            app.command(name, help=first_line(point) or f"A command of {point.module}.")(_stub)
        elif isinstance(command := _load(point), typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _command(arguments: Sequence[str]) -> str:
    """Return the command of a call: the first argument that is not an option."""
    return next((word for word in arguments if not word.startswith("-")), "")


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"unidpo-mm {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Declare the options before the command."""


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        problem = missing_package(error, point.name)
        if problem is not None:
            raise UniDPOError(problem) from error
        package = point.dist.name if point.dist else "unidpo-mm"
        raise UniDPOError(
            f"the command '{point.name}' cannot be loaded from {point.value}: {error}. Install its "
            f"requirements with pip install '{package}[{point.name}]'"
        ) from error


def _stub() -> None:
    """Do nothing: the placeholder of a command that is listed but not called."""

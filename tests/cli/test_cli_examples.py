"""Every command has an example that its own parser accepts; option names fit 80 columns."""

import re
import shlex
from collections.abc import Iterator

import click
import pytest
import typer
from typer.testing import CliRunner

from unidpo_mm.cli.main import build_app


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path
        return
    for name, item in inner.items():
        yield from commands(item, (*path, name))


def of(group: str) -> click.Command:
    return typer.main.get_command(build_app([group])).commands[group]


PATHS = [path for group in ("eval", "demo") for path in commands(of(group), (group,))]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_example_in_the_help_is_a_command(path: tuple[str, ...], monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    done = CliRunner().invoke(build_app(path), [*path, "--help"])
    assert done.exit_code == 0, done.output
    text = re.search(r"Example: (unidpo-mm .*?)(?=\n\n|$)", done.output, flags=re.DOTALL)
    assert text, done.output
    words = shlex.split(text[1].split("\n\nOptions:")[0])
    assert words[: len(path) + 1] == ["unidpo-mm", *path]
    command: click.Command = of(path[0])
    for name in path[1:]:
        command = command.commands[name]
    context = command.make_context(path[-1], words[len(path) + 1 :])  # raises for a wrong option
    names = [name for item in command.get_params(context) for name in item.opts if name[:2] == "--"]
    for name in names:
        assert re.search(rf"{re.escape(name)}(?![\w-])", done.output), name
    assert "…" not in done.output

"""Every command has an example that its parser accepts; option names fit into 80 columns."""

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


def command_group(group: str) -> click.Command:
    return typer.main.get_command(build_app([group])).commands[group]


PATHS = [path for group in ("eval", "demo") for path in commands(command_group(group), (group,))]


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_example_in_the_help_is_a_command(path: tuple[str, ...], monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = CliRunner().invoke(build_app(path), [*path, "--help"])
    assert result.exit_code == 0, result.output
    text = re.search(r"Example: (unidpo-mm .*?)(?=\n\n|$)", result.output, flags=re.DOTALL)
    assert text, result.output
    words = shlex.split(text[1].split("\n\nOptions:")[0])
    assert words[: len(path) + 1] == ["unidpo-mm", *path]
    command: click.Command = command_group(path[0])
    for name in path[1:]:
        command = command.commands[name]
    context = command.make_context(path[-1], words[len(path) + 1 :])  # an unknown option raises
    names = [name for item in command.get_params(context) for name in item.opts if name[:2] == "--"]
    for name in names:
        assert re.search(rf"{re.escape(name)}(?![\w-])", result.output), name
    assert "…" not in result.output

"""Check the commands in bash blocks against the real command line, without running them."""

import argparse
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer
from support.markdown_blocks import ROOT

from unidpo_mm.cli.main import build_app
from unidpo_mm.config import load_recipe
from unidpo_mm.config.checks.recipe import check_loss, check_train
from unidpo_mm.config.shipped import shipped_recipe

__all__ = ["check_command", "commands_of"]

OPTIONAL = re.compile(r"\[((?:--?[\w-]+(?: [^\]]*)?|[\w.]+ \.\.\.))\]")
"""An optional part of a synopsis, such as ``[--html page.html]`` or ``[more.json ...]``."""

OTHER_TOOLS = {"tensorboard": {"--logdir"}, ".": set()}
"""Command of another package or of the shell -> the options that may appear on pages."""


def commands_of(text: str) -> list[list[str]]:
    """Return the words of each command in a bash block, without comments and redirections."""
    lines = OPTIONAL.sub(r"\1", text.replace("\\\n", " ")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [list(_without_redirection(words)) for words in commands if words]


def _without_redirection(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word == ">":
            return
        if word != "...":
            yield word if word.startswith("-") else word.removesuffix("...")


def check_command(words: Sequence[str], folder: Path) -> None:
    """Check one command.

    Args:
        words: The words of the command.
        folder: A directory with the recipes that commands use.

    Raises:
        AssertionError: If the command, one of its options or one of its files does not exist.
    """
    tool, *rest = words
    if tool == "unidpo-mm":
        _check_unidpo_mm(rest, folder)
    elif tool == "python":
        _check_module(rest, folder)
    elif tool in ("torchrun", "accelerate"):
        _check_launcher(tool, rest, folder)
    elif tool == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{re.escape(rest[0])}:.*## ", makefile, re.M), rest[0]
    elif tool == "pip":
        _check_installation(rest)
    else:
        options = {word for word in rest if word.startswith("--")}
        assert tool in OTHER_TOOLS, f"no check for the command {tool}"
        assert options <= OTHER_TOOLS[tool], options


def _check_module(rest: Sequence[str], folder: Path) -> None:
    if rest[0].endswith(".py"):
        assert (ROOT / rest[0]).is_file(), rest[0]
        return
    assert rest[0] == "-m", rest
    assert importlib.util.find_spec(rest[1]), rest[1]
    if rest[1] == "unidpo_mm":
        _check_unidpo_mm(rest[2:], folder)


def _check_launcher(tool: str, rest: Sequence[str], folder: Path) -> None:
    start = list(rest).index("-m")
    if tool == "torchrun":
        from torch.distributed.run import get_args_parser

        parser: argparse.ArgumentParser = get_args_parser()
    else:
        from accelerate.commands.launch import launch_command_parser

        assert rest[0] == "launch", rest
        parser, rest, start = launch_command_parser(), rest[1:], start - 1
    parsed = parser.parse_args([*rest[:start], "-m", "unidpo_mm"])
    if getattr(parsed, "config_file", None):
        assert (ROOT / parsed.config_file).is_file(), parsed.config_file
    assert rest[start + 1] == "unidpo_mm"
    _check_unidpo_mm(rest[start + 2 :], folder)


def _check_installation(rest: Sequence[str]) -> None:
    assert rest[0] == "install", rest
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in rest[1:]:
        extra = re.fullmatch(r"unidpo-mm\[([\w-]+)\]", word)
        assert extra, f"no check for the package {word}"
        assert extra[1] in project["optional-dependencies"], extra[1]


@cache
def _application(name: str) -> Any:
    return typer.main.get_command(build_app([name]))


def _check_unidpo_mm(words: Sequence[str], folder: Path) -> None:
    command, rest = _application(words[0]), list(words)
    while getattr(command, "commands", None):
        assert rest, f"{words} lacks a subcommand"
        assert rest[0] in command.commands, f"there is no command {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    if "--help" in rest:
        return
    context = command.context_class(command, info_name=words[0])
    values, remaining, _ = command.make_parser(context).parse_args(args=rest)  # raises
    assert not remaining, f"{remaining} are not arguments of {words[0]}"
    missing = [
        item.name
        for item in command.get_params(context)
        if item.required and values.get(item.name) in (None, (), [])
    ]
    assert not missing, f"{' '.join(words)} lacks {missing}"
    if words[0] == "train":
        _check_recipe(values["recipe"], values["overrides"] or (), folder)
    _check_names(values)


def _check_recipe(name: str, overrides: Sequence[str], folder: Path) -> None:
    path = folder / name
    if path.is_file():
        load_recipe(path, list(overrides), checks=(check_loss, check_train))
    elif name != "RECIPE":
        load_recipe(shipped_recipe(name), list(overrides), checks=(check_loss, check_train))


def _check_names(values: dict[str, Any]) -> None:
    """Check that benchmarks and suites in the values of options exist."""
    from unidpo_mm_eval.plugins import BENCHMARKS

    from unidpo_mm.plugins import is_path, plugin_names

    names = values.get("benchmark") or values.get("benchmarks") or ()
    for name in [names] if isinstance(names, str) else names:
        assert name == "NAME" or is_path(name) or name in plugin_names(BENCHMARKS), name
    suite = values.get("suite")
    if suite and suite != "NAME":
        assert (ROOT / "eval/unidpo_mm_eval/suites" / f"{suite}.yaml").is_file(), suite

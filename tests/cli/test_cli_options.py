"""An option means the same in every command, and the help of all commands has one style."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from unidpo_mm_eval.command import evaluation
from unidpo_mm_quickstart.command import demo

from unidpo_mm.cli import main as cli

MEANINGS = {
    "--all": "flag: Show every metric",
    "--base": "text: Base model",
    "--batch-size": "number: Maximum batch size",
    "--before": "flag: Also show the responses of the model before training",
    "--benchmark": "text: Name of a benchmark",
    "--beta": "number: Scale of rewards",
    "--chat-template-kwargs": "text: Variables for the chat template",
    "--column": "text: NAME=COLUMN",
    "--compare": "flag|text: Compare",
    "--concepts": "choice: Unseen concepts",
    "--csv": "path: File for the numbers as CSV",
    "--data": "path: Data of the benchmark",
    "--days": "number: Remove stores not used",
    "--device": "text: Device to run on",
    "--directory": "path: Cache directory",
    "--dry-run": "flag: .* only",
    "--dtype": "text|choice: Number format of the weights",
    "--excerpts": "number: Maximum number of pairs with texts and images",
    "--endpoint": "text: URL of an OpenAI-compatible server",
    "--evaluation": "path: Results for the model card",
    "--exact": "flag: With --plan: ",
    "--format": "text: Format of the sources",
    "--held-out": "text: Held-out data",
    "--html": "path: File for an HTML page",
    "--image": "text: Image for the first message",
    "--video": "text: Video for the first message",
    "--images": "text|path: Directory of the image files",
    "--include": "path: Directory of your own task files",
    "--json": "path: File for .* as JSON",
    "--judge": "text: Judge: URL",
    "--judge-cache": "path: File in which replies are cached",
    "--judge-key": "text: Environment variable with the API key",
    "--judge-model": "text: Name by which the server knows the judge",
    "--judge-server": "text: Kind of the judge's server",
    "--key": "text: Environment variable with the API key",
    "--kind": "text: Kind to list",
    "--hard": "flag: List",
    "--ignored": "flag: List",
    "--limit": "number: Maximum number of (rows|clusters|samples|pairs)",
    "--loss": "text: Loss to check for",
    "--markdown": "path: File for the table as Markdown",
    "--max-images": "number: Maximum number of images on the page",
    "--max-length": "number: Maximum number of tokens of a row",
    "--max-new-tokens": "number: Maximum number of tokens of a response",
    "--merge": "flag: Merge the LoRA adapter",
    "--merge-shares": "flag: Merge the shares",
    "--on-policy": "flag: Tune on scored responses of the model itself",
    "--pilot": "number: Use this number of prompts only",
    "--plan": "flag: Print what it will cost",
    "--price": "text: With --plan: price of a million tokens",
    "--share": "text: Share of the responses",
    "--until": "text: Last stage to run",
    "--model": r"text: Model \(path or hub name\)",
    "--name": "text: Name of the model in tables and files",
    "--nltk-data": "path: Directory of NLTK's data",
    "--num-fewshot": "number: Number of examples in the prompt",
    "--open-images": "flag: Open every image",
    "--output": "path: (File|Directory) (for|of|to write)",
    "--overwrite": "flag: Remove existing predictions first",
    "--pairs": "number: Maximum number of pairs",
    "--periods": "number: Number of periods",
    "--predictions": "path: File of predictions",
    "--prompt": "text: Prompt profile|Print the response to this prompt",  # of eval, of chat
    "--protocol": "text: Prompts and rules",
    "--push": "text: Upload to this repository",
    "--reference": "text: Baseline of rewards",
    "--scale": "text: Minimum and maximum score",
    "--scorer": "text: Name of a scorer",
    "--seconds": "number: Seconds between two looks",
    "--seed": "number: Seed of",
    "--seeds": "text: Seeds.*, separated by commas",
    "--served-model": "text: Name by which the server knows the model",
    "--server": "text: Kind of server",
    "--shape": "choice: Model architecture",
    "--shuffle-images": "number: Control: give every sample the image of another one",
    "--skip-invalid": "flag: Skip and list rows with problems",
    "--skip-judge-errors": "flag: Skip samples without a verdict",
    "--split": "text: Split of a data set on a hub",
    "--start": "number: First row",
    "--style": "choice: Style of prompts",
    "--subset": "text: Configuration of a data set on a hub",
    "--suite": "text: Name of a suite",
    "--suspected": "flag: List",
    "--system": "text: System message",
    "--task": "text: Name of the benchmark in lmms-eval",
    "--tasks": "text: Comma-separated names of lm-eval's tasks",
    "--temperature": "number: Temperature",
    "--think-end-token": "text: End of the reasoning",
    "--timeout": "number: Seconds to wait",
    "--to": "choice: Format to write",
    "--tool-version": "text: Version of the tool",
    "--top-p": "number: Sample from the most likely tokens",
    "--verify-batching": "number: Regenerate this many responses",
    "--weight-rows": "number: Number of rows for which --model computes initial weights",
    "-b": "text: Name of a benchmark",
}
"""Option -> its type, and the beginning of its help in every command."""
TYPES = {"bool": "flag", "int": "number", "float": "number", "str": "text", "Path": "path"}
STYLE = re.compile(r"[A-Z$].*[^.]\.( \[default: .+[^.]\])?")
"""A sentence, followed by the default if the command line cannot show it itself."""
Command = tuple[str, Any]


def commands() -> Iterator[Command]:
    """Yield each command of all packages with its name."""

    def below(command: Any, name: str) -> Iterator[Command]:
        if not hasattr(command, "commands"):
            yield name, command
        for inner, child in getattr(command, "commands", {}).items():
            if inner not in ("eval", "demo"):  # placeholders
                yield from below(child, f"{name} {inner}".strip())

    alone = typer.Typer(add_completion=False)
    alone.command("demo")(demo)
    yield from below(typer.main.get_command(cli.build_app([])), "")
    yield from below(typer.main.get_command(evaluation), "eval")
    yield from below(typer.main.get_command(alone), "demo")


def parameters(kind: str) -> list[tuple[str, str, Any]]:
    """Return the command, the name and the declaration of all visible options or arguments."""
    return [
        (name, word, parameter)
        for name, command in commands()
        for parameter in command.params
        for word in parameter.opts
        if parameter.param_type_name == kind and not getattr(parameter, "hidden", False)
    ]


def type_of(parameter: Any) -> str:
    annotation = re.sub(
        r"^list\[(.*)\]$", r"\1", str(parameter.type_descriptor.annotation).replace(" | None", "")
    )
    name = re.sub(r"<class '(?:.*\.)?(\w+)'>|.*\.(\w+)$", r"\1\2", annotation)
    return TYPES.get(name, "choice")


def test_all_commands_are_examined():
    names = {name for name, _ in commands()}
    assert {"train", "data check", "cache prune", "eval run", "eval data check", "demo"} <= names
    assert len(names) == len(list(commands())) > 20


@pytest.mark.parametrize(("command", "word", "option"), parameters("option"))
def test_an_option_means_the_same_in_every_command(command: str, word: str, option: Any):
    assert word in MEANINGS, f"'{word}' of `{command}` is new: add what it means"
    types, _, meaning = MEANINGS[word].partition(": ")
    assert re.match(meaning, option.help), f"'{word}' of `{command}`: {option.help}"
    assert type_of(option) in types.split("|"), f"'{word}' of `{command}`"


def test_the_table_has_no_option_that_no_command_has():
    assert set(MEANINGS) == {word for _, word, _ in parameters("option")}


@pytest.mark.parametrize(
    ("command", "word", "parameter"), [*parameters("option"), *parameters("argument")]
)
def test_every_option_is_described_by_a_sentence(command: str, word: str, parameter: Any):
    assert STYLE.fullmatch(parameter.help or ""), f"'{word}' of `{command}`: {parameter.help}"
    if parameter.multiple:
        assert re.search(r"; repeatable\.|once per", parameter.help), parameter.help


def test_every_argument_is_shown_in_capitals():
    names = [(command, argument.metavar) for command, _, argument in parameters("argument")]
    assert not [pair for pair in names if not pair[1] or pair[1].islower()]


@pytest.mark.parametrize(("name", "command"), list(commands()))
def test_every_command_begins_with_a_sentence_and_has_an_example(name: str, command: Any):
    first, _, _ = command.help.partition("\n")
    assert STYLE.fullmatch(first), first
    text = f"{command.help}\n{command.epilog or ''}"
    assert text.count("Example: unidpo-mm ") == 1, text
    assert f"Example: unidpo-mm {name} " in f"{text} ", text

"""Options shared by several commands, and errors of runs with several processes."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from click import ClickException

from unidpo_mm.errors import UniDPOError


def option(text: str, *names: str, **settings: Any) -> Any:
    """Build an option whose help shows no default."""
    return typer.Option(*names, help=text, show_default=False, **settings)


CHECKPOINTS = "Directories of models or LoRA adapters, or hub names."
PREDICTIONS = 'JSONL with one {"id": ..., "response": ...} per line.'
BENCHMARK = "Name of a benchmark, or a Python file, repeatable; see `eval list`."
JUDGE = "URL of an OpenAI-compatible server, or local:CHECKPOINT."

Checkpoints = Annotated[list[str], typer.Argument(help=CHECKPOINTS, metavar="CHECKPOINT...")]
BenchmarkName = Annotated[
    str, option("Name of a benchmark, or a Python file; see `eval list`.", "--benchmark", "-b")
]
Data = Annotated[Path, option("The benchmark's data: a file or directory.")]
Output = Annotated[Path, option("Directory of predictions and results.")]
Names = Annotated[list[str] | None, option("Name of each checkpoint, in order.", "--name")]
Name = Annotated[str | None, option("Name of the model [default: from the predictions].")]
DType = Annotated[str, typer.Option(help="auto (as saved), bfloat16, float16 or float32.")]
BatchSize = Annotated[
    int, typer.Option(help="Maximum batch size; halved if memory runs out.", min=1)
]
Style = Annotated[str, typer.Option(help="chat, raw, or auto: chat if there is a chat template.")]
ProtocolName = Annotated[
    str | None, option("Prompts and rules [default: the suite's, or the benchmark's first].")
]
ScorerName = Annotated[
    str | None,
    option("Name of a scorer, or a Python file with one [default: the protocol's]."),
]
MaxNewTokens = Annotated[
    int | None, option("Maximum length of a response [default: the protocol's].", min=1)
]
Limit = Annotated[
    int | None, option("Maximum number of clusters per benchmark, drawn with a fixed seed.", min=1)
]
Images = Annotated[Path | None, option("Directory of image files.")]
TemplateVariables = Annotated[
    list[str] | None,
    option(
        "Variables for the chat template: a JSON object, or NAME=VALUE, repeatable.",
        "--chat-template-kwargs",
    ),
]
Overwrite = Annotated[bool, typer.Option(help="Remove existing predictions first.")]
Server = Annotated[
    str, typer.Option(help="vllm, sglang, openai, or auto: as the server's model list states.")
]
Key = Annotated[str | None, option("Environment variable with the API key.")]
Judge = Annotated[str | None, option(JUDGE)]
JudgeModel = Annotated[str | None, option("The server's name of the judge.")]
JudgeKey = Annotated[
    str | None,
    option("Environment variable with the API key [default: OPENAI_API_KEY, for https only]."),
]
JudgeCache = Annotated[Path | None, option("File in which replies are cached.")]
JudgeServer = Annotated[str, typer.Option(help="The judge's: vllm, sglang, openai or auto.")]
Html = Annotated[Path | None, option("Write an HTML page.")]
Markdown = Annotated[Path | None, option("Write the table as Markdown.")]
Csv = Annotated[Path | None, option("Write the numbers as CSV.")]
Json = Annotated[Path | None, option("Write the numbers as JSON.", "--json")]

GRACE = 10.0
"""Seconds that a process waits for the first one to print the same error."""
LOCAL_RANK = "LOCAL_RANK"
"""Environment variable in which launchers number the processes of a machine."""


@contextlib.contextmanager
def errors_once() -> Iterator[None]:
    """Let only the first process of a machine print an error that all of them have.

    The launcher ends the others as soon as the first one fails. An error of another process alone
    is raised there, and so printed, after a delay.
    """
    try:
        yield
    except (UniDPOError, ClickException):
        if os.environ.get(LOCAL_RANK, "0") != "0":
            time.sleep(GRACE)
        raise

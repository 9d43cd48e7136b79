"""Options shared by several commands, and errors of runs with several processes."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from click import ClickException

from unidpo_mm.encoding_choices import PromptStyle
from unidpo_mm.errors import UniDPOError


def option(text: str, *names: str, **settings: Any) -> Any:
    """Build an option whose help shows no default."""
    return typer.Option(*names, help=text, show_default=False, **settings)


CHECKPOINTS = "Directories of models or LoRA adapters, or hub names."
PREDICTIONS = 'File of predictions, one {"id": ..., "response": ...} per line.'
SERVED = "Name by which the server knows the model."
BENCHMARK = "Name of a benchmark, or a Python file; see `eval list`; repeatable."
JUDGE = "Judge: URL of an OpenAI-compatible server, or local:CHECKPOINT."

Checkpoints = Annotated[list[str], typer.Argument(help=CHECKPOINTS, metavar="CHECKPOINT")]
BenchmarkName = Annotated[
    str, option("Name of a benchmark, or a Python file; see `eval list`.", "--benchmark", "-b")
]
Data = Annotated[Path, option("Data of the benchmark: a file or directory.")]
Output = Annotated[Path, option("Directory of predictions and results.")]
Names = Annotated[
    list[str] | None,
    option("Name of the model in tables and files, once per checkpoint.", "--name"),
]
Name = Annotated[
    str | None, option("Name of the model in tables and files. [default: that of the predictions]")
]
DType = Annotated[
    str,
    typer.Option(
        help="Number format of the weights: auto (as saved), bfloat16, float16 or float32."
    ),
]
BatchSize = Annotated[
    int, typer.Option(help="Maximum batch size; halved if memory runs out.", min=1)
]
Style = Annotated[
    PromptStyle,
    typer.Option(help="Style of prompts: chat, raw, or auto (chat if there is a chat template)."),
]
ProtocolName = Annotated[
    str | None,
    option("Prompts and rules. [default: those of the suite, or the first of the benchmark]"),
]
ScorerName = Annotated[
    str | None,
    option("Name of a scorer, or a Python file. [default: that of the protocol]"),
]
MaxNewTokens = Annotated[
    int | None,
    option("Maximum number of tokens of a response. [default: that of the protocol]", min=1),
]
Limit = Annotated[
    int | None, option("Maximum number of clusters per benchmark, drawn with a fixed seed.", min=1)
]
Images = Annotated[Path | None, option("Directory of the image files.")]
TemplateVariables = Annotated[
    list[str] | None,
    option(
        "Variables for the chat template: a JSON object, or NAME=VALUE; repeatable.",
        "--chat-template-kwargs",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Remove existing predictions first.")]
Server = Annotated[
    str, typer.Option(help="Kind of server: vllm, sglang, openai, or auto (asks the server).")
]
Key = Annotated[
    str | None,
    option("Environment variable with the API key. [default: OPENAI_API_KEY, for https only]"),
]
Judge = Annotated[str | None, option(JUDGE)]
JudgeModel = Annotated[str | None, option("Name by which the server knows the judge.")]
JudgeKey = Annotated[
    str | None,
    option("Environment variable with the API key. [default: OPENAI_API_KEY, for https only]"),
]
JudgeCache = Annotated[Path | None, option("File in which replies are cached.")]
JudgeServer = Annotated[
    str, typer.Option(help="Kind of the judge's server: vllm, sglang, openai, or auto.")
]
Html = Annotated[Path | None, option("File for an HTML page.")]
Markdown = Annotated[Path | None, option("File for the table as Markdown.")]
Csv = Annotated[Path | None, option("File for the numbers as CSV.")]
Json = Annotated[Path | None, option("File for the numbers as JSON.", "--json")]

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

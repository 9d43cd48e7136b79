"""Options that several commands have, with one wording each."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BatchSize",
    "Checkpoints",
    "DType",
    "Images",
    "Judge",
    "JudgeCache",
    "JudgeKey",
    "JudgeModel",
    "JudgeServer",
    "Key",
    "MaxNewTokens",
    "Names",
    "Overwrite",
    "ProtocolName",
    "Server",
    "Style",
    "TemplateVariables",
]

WHICH = "Folders of models or of LoRA matrices, or hub names."

Checkpoints = Annotated[list[str], typer.Argument(help=WHICH, metavar="CHECKPOINT...")]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="What each checkpoint is called, in order.", show_default=False),
]
DType = Annotated[str, typer.Option(help="auto (as saved), bfloat16, float16 or float32.")]
BatchSize = Annotated[
    int, typer.Option(help="How many at once; halved where memory runs out.", min=1)
]
Style = Annotated[
    str, typer.Option(help="chat, raw, or auto: the chat template where there is one.")
]
ProtocolName = Annotated[
    str | None,
    typer.Option(help="Prompts and rules; the suite's, or the benchmark's first, if left out."),
]
MaxNewTokens = Annotated[
    int | None, typer.Option(help="In place of the protocol's.", min=1, show_default=False)
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of pictures that the data name.", show_default=False)
]
TemplateVariables = Annotated[
    list[str] | None,
    typer.Option(
        "--chat-template-kwargs",
        help="Variables for the chat template: a JSON object, or NAME=VALUE, repeated.",
        show_default=False,
    ),
]
Server = Annotated[
    str,
    typer.Option(
        "--server", help="vllm, sglang, openai, or auto: as the server's list of models says."
    ),
]
JudgeServer = Annotated[
    str, typer.Option("--judge-server", help="The judge's: vllm, sglang, openai or auto.")
]
Overwrite = Annotated[bool, typer.Option(help="Begin anew, whatever is there.")]
Key = Annotated[
    str | None,
    typer.Option(help="Variable of the environment with the server's key.", show_default=False),
]
Judge = Annotated[
    str | None,
    typer.Option(help="An OpenAI-compatible address, or local:CHECKPOINT.", show_default=False),
]
JudgeModel = Annotated[
    str | None, typer.Option(help="What the server calls the judge.", show_default=False)
]
JudgeKey = Annotated[
    str | None,
    typer.Option(
        help="Variable of the environment with its key; OPENAI_API_KEY for https.",
        show_default=False,
    ),
]
JudgeCache = Annotated[
    Path | None, typer.Option(help="File of the judge's answers, asked once.", show_default=False)
]

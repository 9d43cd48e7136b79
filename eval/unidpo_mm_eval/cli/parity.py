"""`unidpo-mm eval parity`: does a server say what the checkpoint says in this process?"""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    DType,
    Images,
    Key,
    MaxNewTokens,
    Overwrite,
    ProtocolName,
    Server,
    TemplateVariables,
)

__all__ = ["compare_with_endpoint"]

DIFFERENT = 1
"""Exit code where scores differ."""


def compare_with_endpoint(  # noqa: PLR0913, PLR0917, one parameter an option
    checkpoint: Annotated[str, typer.Argument(help="A folder or hub name.")],
    endpoint: Annotated[str, typer.Option(help="The server's OpenAI-compatible address.")],
    served_model: Annotated[str, typer.Option(help="What the server calls the model.")],
    benchmark: Annotated[list[str], typer.Option("--benchmark", "-b", help="One or more.")],
    data: Annotated[Path, typer.Option(help="The benchmark's data, or a folder.")],
    out: Annotated[Path, typer.Option(help="Folder of both predictions.")],
    protocol: ProtocolName = None,
    samples: Annotated[int, typer.Option(help="Clusters to ask.", min=1)] = 50,
    images: Images = None,
    max_new_tokens: MaxNewTokens = None,
    chat_template_kwargs: TemplateVariables = None,
    server: Server = "auto",
    dtype: DType = "auto",
    key: Key = None,
    overwrite: Overwrite = False,
) -> None:
    """Ask a checkpoint here and a server of it the same questions, and say where they differ.

    The exit code is 0 where all scores are the same, 1 where some are not.
    """
    from rich.console import Console

    from ..models.chat import ChatClient
    from ..models.template_variables import parse_variables
    from ..report.backends import print_parity
    from ..run.parity import compare_backends
    from ..run.plan import Plan

    plan = Plan.of(
        (),
        data=data,
        out=out,
        benchmarks=benchmark,
        suite=None,
        protocol=protocol,
        names=(),
        subset=samples,
        judged=False,
        images=images,
    )
    client = ChatClient(endpoint, served_model, key_name=key, server=server)
    found = compare_backends(
        checkpoint,
        client,
        plan,
        dtype=dtype,
        images=images,
        max_new_tokens=max_new_tokens,
        chat_template_kwargs=parse_variables(chat_template_kwargs or ()),
        overwrite=overwrite,
    )
    print_parity(found, Console())
    if any(one.same_score < one.n for one in found):
        raise typer.Exit(DIFFERENT)

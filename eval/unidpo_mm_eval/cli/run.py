"""`unidpo-mm eval run`: checkpoints answer benchmarks, and what they said is scored."""

from pathlib import Path
from typing import Annotated, Any

import typer

from .options import (
    BatchSize,
    DType,
    Images,
    Key,
    MaxNewTokens,
    Names,
    Overwrite,
    ProtocolName,
    Server,
    Style,
    TemplateVariables,
)
from .printed_once import printed_once

__all__ = ["run_checkpoints"]


@printed_once()
def run_checkpoints(  # noqa: PLR0913, PLR0917, one parameter an option
    data: Annotated[Path, typer.Option(help="The benchmark's data, or a folder with a suite's.")],
    out: Annotated[Path, typer.Option(help="Folder of predictions and results.")],
    checkpoints: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of models or of LoRA matrices, or hub names.", metavar="CHECKPOINT..."
        ),
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="One or more; see `eval list`.", show_default=False),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="All benchmarks of a suite.", show_default=False)
    ] = None,
    protocol: ProtocolName = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="A prompt profile in place of the protocol's.", show_default=False),
    ] = None,
    style: Style = "auto",
    chat_template_kwargs: TemplateVariables = None,
    name: Names = None,
    images: Images = None,
    batch_size: BatchSize = 8,
    dtype: DType = "auto",
    max_new_tokens: MaxNewTokens = None,
    subset: Annotated[
        int | None,
        typer.Option(help="Clusters to ask, drawn by a fixed seed.", min=1, show_default=False),
    ] = None,
    shuffle_pictures: Annotated[
        int | None,
        typer.Option(
            help="The control: every question gets another's picture, drawn by this seed.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        int, typer.Option(help="Ask so many again, alone, and say what differs.", min=0)
    ] = 0,
    overwrite: Overwrite = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Ask a served model in place of checkpoints: an OpenAI-compatible address.",
            show_default=False,
        ),
    ] = None,
    served_model: Annotated[
        str | None, typer.Option(help="What the server calls it.", show_default=False)
    ] = None,
    server: Server = "auto",
    key: Key = None,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer of a server.")] = 300.0,
) -> None:
    """Let checkpoints answer benchmarks, score what they said, and compare them.

    An interrupted run resumes with the same command. `accelerate launch -m unidpo_mm eval run ...`
    shares the questions between processes.

    Example: `unidpo-mm eval run before/ after/ -b pope --data POPE.tsv --out results/`
    """
    from ..models.template_variables import parse_variables
    from ..run.flow import run_endpoint, run_plan
    from ..run.plan import Plan

    variables = parse_variables(chat_template_kwargs or ())
    if variables and style == "raw":
        text = "raw prompts have no chat template"
        raise typer.BadParameter(text, param_hint="--chat-template-kwargs")
    if bool(checkpoints) == (endpoint is not None):
        raise typer.BadParameter("name checkpoints, or --endpoint", param_hint="CHECKPOINT...")
    if endpoint is None and (served_model or key or server != "auto"):
        raise typer.BadParameter("these are of a server: name it", param_hint="--endpoint")
    if endpoint is not None and (style == "raw" or check or dtype != "auto"):
        text = "a server renders prompts and holds weights by itself, and is not asked twice"
        raise typer.BadParameter(text, param_hint="--style raw, --check, --dtype")
    plan = Plan.of(
        checkpoints or (),
        data=data,
        out=out,
        benchmarks=benchmark or (),
        suite=suite,
        protocol=protocol,
        names=name or (),
        subset=subset,
        images=images,
    )
    settings: dict[str, Any] = {
        "prompt": prompt,
        "images": images,
        "max_new_tokens": max_new_tokens,
        "shuffle_pictures": shuffle_pictures,
        "chat_template_kwargs": variables,
        "overwrite": overwrite,
    }
    if endpoint is None:
        run_plan(plan, dtype=dtype, check=check, style=style, batch_size=batch_size, **settings)
        return
    if served_model is None:
        raise typer.BadParameter("a server has many models: name one", param_hint="--served-model")
    from ..models.chat import ChatClient

    client = ChatClient(endpoint, served_model, key_name=key, timeout=timeout, server=server)
    run_endpoint(plan, client, **settings)

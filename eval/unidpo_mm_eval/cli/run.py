"""`unidpo-mm eval run`: checkpoints answer benchmarks, and what they said is scored."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["run_checkpoints"]


def run_checkpoints(  # noqa: PLR0913, PLR0917, one parameter an option
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help="Folders of models or of LoRA matrices, or hub names.", metavar="CHECKPOINT..."
        ),
    ],
    data: Annotated[Path, typer.Option(help="The benchmark's data, or a folder with a suite's.")],
    out: Annotated[Path, typer.Option(help="Folder of predictions and results.")],
    benchmark: Annotated[
        list[str] | None,
        typer.Option("--benchmark", "-b", help="One or more; see `eval list`.", show_default=False),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="All benchmarks of a suite.", show_default=False)
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Prompts and rules; the suite's, or the benchmark's first, if left out."),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(help="A prompt profile in place of the protocol's.", show_default=False),
    ] = None,
    style: Annotated[
        str, typer.Option(help="chat, raw, or auto: the chat template where there is one.")
    ] = "auto",
    name: Annotated[
        list[str] | None,
        typer.Option(help="What each checkpoint is called, in order.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures that the data name.", show_default=False),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Questions at once; halved where memory runs out.", min=1)
    ] = 8,
    dtype: Annotated[
        str, typer.Option(help="auto (as saved), bfloat16, float16 or float32.")
    ] = "auto",
    max_new_tokens: Annotated[
        int | None,
        typer.Option(help="In place of the protocol's.", min=1, show_default=False),
    ] = None,
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
    overwrite: Annotated[
        bool, typer.Option(help="Remove predictions that were made otherwise.")
    ] = False,
) -> None:
    """Let checkpoints answer benchmarks, score what they said, and compare them.

    Run again, it goes on where it stopped. `accelerate launch -m unidpo_mm eval run ...` shares
    the questions between processes.
    """
    from ..engine.flow import Plan, run_plan

    plan = Plan.of(
        checkpoints,
        data=data,
        out=out,
        benchmarks=benchmark or (),
        suite=suite,
        protocol=protocol,
        names=name or (),
        subset=subset,
    )
    run_plan(
        plan,
        prompt=prompt,
        style=style,
        images=images,
        batch_size=batch_size,
        dtype=dtype,
        max_new_tokens=max_new_tokens,
        shuffle_pictures=shuffle_pictures,
        check=check,
        overwrite=overwrite,
    )

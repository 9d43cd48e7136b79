"""`unidpo-mm eval prefs`: which answer of a pair does a model find likelier?"""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["prefer"]


def prefer(  # noqa: PLR0917, one parameter an option
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            help="Folders of models or of LoRA matrices, or hub names.", metavar="CHECKPOINT..."
        ),
    ],
    data: Annotated[Path, typer.Option(help="The file of pairs.")],
    out: Annotated[Path, typer.Option(help="Folder of log-probabilities and results.")],
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            "-b",
            help="preferences, mm_rlhf_rewardbench, vl_rewardbench or multimodal_rewardbench.",
        ),
    ] = "preferences",
    images: Annotated[
        Path | None,
        typer.Option(help="Folder of pictures that the data name.", show_default=False),
    ] = None,
    reference: Annotated[
        str,
        typer.Option(
            help="none: log-probability a token; lora_off: against the model without its LoRA; "
            "else a checkpoint."
        ),
    ] = "none",
    beta: Annotated[float, typer.Option(help="Of rewards with a reference.")] = 0.1,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What each checkpoint is called, in order.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Rows at once.", min=1)] = 8,
    dtype: Annotated[
        str, typer.Option(help="auto (as saved), bfloat16, float16 or float32.")
    ] = "auto",
    style: Annotated[
        str, typer.Option(help="chat, raw, or auto: the chat template where there is one.")
    ] = "auto",
    overwrite: Annotated[bool, typer.Option(help="Begin anew, whatever is there.")] = False,
) -> None:
    """Score pairs by log-probabilities: accuracy, margins, and what length does to them."""
    from ..prefs.flow import run_preferences

    run_preferences(
        checkpoints,
        data=data,
        out=out,
        benchmark=benchmark,
        images=images,
        reference=reference,
        beta=beta,
        names=name or (),
        batch_size=batch_size,
        dtype=dtype,
        style=style,
        overwrite=overwrite,
    )

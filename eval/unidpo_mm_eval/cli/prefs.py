"""`unidpo-mm eval prefs`: which answer of a pair does a model find likelier?"""

from pathlib import Path
from typing import Annotated

import typer

from .options import (
    BatchSize,
    Checkpoints,
    DType,
    Images,
    Names,
    Overwrite,
    Style,
    TemplateVariables,
)
from .printed_once import printed_once

__all__ = ["prefer"]


@printed_once()
def prefer(  # noqa: PLR0917, one parameter an option
    checkpoints: Checkpoints,
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
    images: Images = None,
    reference: Annotated[
        str,
        typer.Option(
            help="none: log-probability a token; lora_off: against the model without its LoRA; "
            "else a checkpoint."
        ),
    ] = "none",
    beta: Annotated[float, typer.Option(help="Of rewards with a reference.")] = 0.1,
    name: Names = None,
    batch_size: BatchSize = 8,
    dtype: DType = "auto",
    style: Style = "auto",
    chat_template_kwargs: TemplateVariables = None,
    overwrite: Overwrite = False,
) -> None:
    """Score pairs by log-probabilities: accuracy, margins, and what length does to them."""
    from ..models.template_variables import parse_variables
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
        chat_template_kwargs=parse_variables(chat_template_kwargs or ()),
        overwrite=overwrite,
    )

"""`unidpo-mm merge`: merge a LoRA adapter into its base model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["merge"]


def merge(
    adapter: Annotated[
        Path,
        typer.Argument(
            help="A LoRA adapter: the output directory of a run, or one of its checkpoints.",
            metavar="LORA_DIR",
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Directory for the merged model; must be empty if it exists.")
    ],
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Number format of the weights; auto for that of the base model."),
    ] = "auto",
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model (path or hub name). [default: the one in adapter_config.json]"
        ),
    ] = None,
) -> None:
    """Merge a LoRA adapter into its base model, for use without peft."""
    from rich.console import Console

    from ..errors import ModelError, Problem

    if not adapter.is_dir():
        raise ModelError(
            Problem("LORA_DIR", f"'{adapter}' is not a directory", "Use the directory of a run")
        )

    from ..modeling.load import ModelSource  # imports torch
    from ..modeling.merge import merge_adapter

    source = ModelSource(
        name_or_path=str(adapter), dtype=dtype, base_name_or_path=base, base_key="--base"
    )
    merged = merge_adapter(source, output)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(
        f"Merged '{adapter}' into '{merged.base}' ({merged.dtype}; logits differ by at most "
        f"{merged.difference:.1e}). Load it with transformers.{merged.auto_class}"
        f".from_pretrained('{output}')",
        markup=False,
    )

"""`unidpo-mm merge`: makes a whole model of a LoRA adapter and its base model."""

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
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Directory for the merged model; must not exist, or be empty.", show_default=False
        ),
    ],
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Format of the weights; auto uses the base model's."),
    ] = "auto",
    base: Annotated[
        str | None,
        typer.Option(help="Base model, if it is not where the adapter says.", show_default=False),
    ] = None,
) -> None:
    """Merge a LoRA adapter into its base model, as a model that transformers loads alone.

    Example: unidpo-mm merge out --output out-merged
    """
    from rich.console import Console

    from ..errors import ModelError, Problem

    if not adapter.is_dir():
        raise ModelError(
            Problem("LORA_DIR", f"'{adapter}' is not a directory", "Use the directory of a run")
        )

    from ..modeling.load import ModelSource  # torch, so after the first check
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

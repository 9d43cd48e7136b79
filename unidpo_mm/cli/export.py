"""`unidpo-mm export`: write a trained model for other programs, and prove that it is equal."""

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["export"]


def export(  # noqa: PLR0917, one parameter per option
    folder: Annotated[
        Path,
        typer.Argument(
            help="The output directory of a run, one of its checkpoints, or a LoRA adapter.",
            metavar="FOLDER",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Directory to write; must be empty if it exists.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Merge the LoRA adapter into its base model.")
    ] = False,
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        typer.Option(help="Number format of the weights; auto for that of the model."),
    ] = "auto",
    base: Annotated[
        str | None,
        typer.Option(help="Base model (path or hub name). [default: the recorded one]"),
    ] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Results for the model card: a file of `eval report --json` or `eval compare "
            "--json`; repeatable.",
        ),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="Upload to this repository of the Hugging Face hub, private if it is new.",
            metavar="REPO",
        ),
    ] = None,
) -> None:
    """Export a model for other programs, with a model card, and check that it is equal.

    A LoRA adapter gets the weight names of its base model's files, which vLLM and other programs
    expect; --merge writes a full model instead. The exported files are then loaded with
    transformers alone: prompts, log-probs and greedy tokens must equal those of the trained model.
    """
    from rich.console import Console

    from ..export.evaluation import read_evaluation
    from ..export.push import check_push
    from ..export.push import push as upload
    from ..export.reading import read_record

    evaluations = tuple(item for path in evaluation or () for item in read_evaluation(path))
    if push is not None:
        check_push(push)
    record = read_record(folder)

    from ..export.export import ExportOptions, export_model  # imports torch

    options = ExportOptions(
        output=output, merge=merge, dtype=dtype, base=base, evaluations=evaluations, name=push
    )
    exported = export_model(record, options)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(exported.text(), markup=False)
    if push is not None:
        console.print(f"Uploaded to {upload(output, push)}", markup=False)

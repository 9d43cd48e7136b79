"""`unidpo-mm eval text`: text benchmarks by lm-eval."""

from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, Checkpoints, DType, Names, Style, TemplateVariables

__all__ = ["run_text"]


def run_text(  # noqa: PLR0917, one parameter an option
    checkpoints: Checkpoints,
    tasks: Annotated[str, typer.Option(help="Names of tasks, with commas between.")],
    out: Annotated[Path, typer.Option(help="Folder of results and logged samples.")],
    include: Annotated[
        Path | None,
        typer.Option(help="Folder of task files of your own.", show_default=False),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(help="Examples before a question; the task's own if left out.", min=0),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Questions of each task.", min=1, show_default=False)
    ] = None,
    name: Names = None,
    batch_size: BatchSize = 8,
    dtype: DType = "auto",
    style: Style = "auto",
    chat_template_kwargs: TemplateVariables = None,
    think_end_token: Annotated[
        str | None,
        typer.Option(help="lm-eval scores what follows it, as </think>.", show_default=False),
    ] = None,
    nltk_data: Annotated[
        Path | None,
        typer.Option(help="Folder of NLTK's data, for tasks that need some.", show_default=False),
    ] = None,
) -> None:
    """Hand checkpoints to lm-eval, and keep what it says of them.

    It is not installed by default: pip install 'unidpo-mm[lm-eval]'.
    """
    from rich.console import Console

    from ..models.checkpoint import find_checkpoints, load_checkpoint
    from ..models.processes import processes
    from ..models.template_variables import parse_variables
    from ..report.backends import print_text_results
    from ..run.text_tasks import run_text_tasks, write_text_results

    if processes().num_processes > 1:
        raise typer.BadParameter("lm-eval runs in one process", param_hint="accelerate launch")
    variables = parse_variables(chat_template_kwargs or ())
    results = []
    for checkpoint in find_checkpoints(checkpoints, name or ()):
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=processes().device)
        found = run_text_tasks(
            loaded,
            [task.strip() for task in tasks.split(",") if task.strip()],
            include=include,
            num_fewshot=num_fewshot,
            limit=limit,
            batch_size=batch_size,
            style=style,
            chat_template_kwargs=variables,
            think_end_token=think_end_token,
            nltk_data=nltk_data,
        )
        del loaded
        write_text_results(found, out / checkpoint.name)
        results.append(found)
    print_text_results(results, Console())

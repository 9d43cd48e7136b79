"""`unidpo-mm data`: look at preference data before a run does, show rows, write other formats."""

import dataclasses
import json
import math
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..check import CheckSettings
    from ..data.load import SourceFile

__all__ = ["data"]

PROBLEMS_FOUND = 1
"""Exit code of a check that found something a run would refuse."""

data = typer.Typer(
    help="Check preference data, show it as a model sees it, or write it in another format.",
    no_args_is_help=True,
)


class Layout(StrEnum):
    """What can be written."""

    NATIVE = "native"
    TRL = "trl"


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders, data sets on a hub, or one recipe (.yaml) with its sources.",
        metavar="SOURCE...",
        show_default=False,
    ),
]
Images = Annotated[
    str | None, typer.Option(help="Folder that picture paths start from.", show_default=False)
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Format of the sources; found by the columns if left out."),
]
Scale = Annotated[
    str | None,
    typer.Option(help="Lowest and highest score of the sources, as in 0,10.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(help="A model: lengths in tokens, and its first weights.", show_default=False),
]


@data.command("check")
def check(  # noqa: PLR0917, one parameter an option
    sources: Sources,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--eval", help="Held-out data, to look for overlap.", show_default=False),
    ] = None,
    images: Images = None,
    format_name: FormatName = None,
    scale: Scale = None,
    model: Model = None,
    max_length: Annotated[
        int | None, typer.Option(help="Most tokens of a row, with --model.", show_default=False)
    ] = None,
    sample: Annotated[int, typer.Option(help="Rows that the model scores; 0 for none.")] = 64,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything here.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with charts here.", show_default=False)
    ] = None,
) -> None:
    """Read every row and picture and say what is wrong, what is odd, and what a run would see.

    The exit code is 0 where a run could start, 1 where it would refuse, 2 for a wrong command.
    """
    from rich.console import Console

    from ..check import check_data
    from ..check.text import print_report

    files, eval_files, settings = _read(sources, held_out or [], images, format_name, scale)
    arguments = settings.arguments if max_length is None else {"max_length": max_length}
    settings = dataclasses.replace(settings, model=model, sample=sample, arguments=arguments)
    report = check_data(files, settings, held_out=eval_files)
    console = Console()
    print_report(report, console if console.width > 120 else Console(width=120))
    if json_file is not None:
        json_file.write_text(json.dumps(_plain(report), indent=2), encoding="utf-8")
    if html is not None:
        from ..check.page import page

        title = f"Data check: {', '.join(Path(source).name for source in sources)}"
        html.write_text(page(report, title=title), encoding="utf-8")
    if report.problems:
        raise typer.Exit(PROBLEMS_FOUND)


@data.command("preview")
def preview(  # noqa: PLR0917
    sources: Sources,
    model: Annotated[
        str, typer.Option(help="The model whose tokens are shown.", show_default=False)
    ],
    rows: Annotated[int, typer.Option(help="How many rows.")] = 3,
    start: Annotated[int, typer.Option(help="The first of them, from 1.")] = 1,
    images: Images = None,
    format_name: FormatName = None,
    max_length: Annotated[
        int | None, typer.Option(help="Most tokens of a row.", show_default=False)
    ] = None,
) -> None:
    """Show rows as the model will see them, tokens coloured by what they are."""
    from rich.console import Console

    from ..check.preview import preview as preview_row
    from ..data.load import load_rows
    from ..training.config import UniDPOConfig
    from ..training.setup import load_family_and_adapter

    files, _, settings = _read(sources, [], images, format_name, None)
    found = load_rows(files, score_scale=settings.score_scale)[start - 1 : start - 1 + rows]
    given = settings.arguments | ({} if max_length is None else {"max_length": max_length})
    arguments = UniDPOConfig(output_dir="unused", report_to="none", **given)
    _, adapter = load_family_and_adapter(model, arguments)
    console = Console()
    for row in found:
        for line in preview_row(row, adapter):
            console.print(line, soft_wrap=True)
        console.print()


@data.command("convert")
def convert(
    sources: Sources,
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.", show_default=False)],
    to: Annotated[Layout, typer.Option(help="Our format, or TRL's.")] = Layout.NATIVE,
    images: Images = None,
    format_name: FormatName = None,
    scale: Scale = None,
) -> None:
    """Write preference data of any format in ours, or in TRL's."""
    from ..data.convert import write_rows
    from ..data.load import load_rows

    files, _, settings = _read(sources, [], images, format_name, scale)
    rows = load_rows(files, score_scale=settings.score_scale)
    lines = write_rows(rows, out, to.value)
    typer.echo(f"{out}: {lines:,} lines of {len(rows):,} rows, format {to.value}")


def _read(
    sources: list[str],
    held_out: list[str],
    images: str | None,
    format_name: str | None,
    scale: str | None,
) -> "tuple[list[SourceFile], list[SourceFile], CheckSettings]":
    """Returns sources and settings of a recipe, or of what the command line says."""
    from ..check import CheckSettings
    from ..data.load import SourceFile
    from ..data.scores import ScorePolicy

    if len(sources) == 1 and Path(sources[0]).suffix in (".yaml", ".yml"):
        return _of_recipe(Path(sources[0]))
    policy = ScorePolicy(scale=_bounds(scale))
    files = [
        [SourceFile(path=path, images=images, format=format_name, scores=policy) for path in paths]
        for paths in (sources, held_out)
    ]
    return files[0], files[1], CheckSettings()


def _of_recipe(path: Path) -> "tuple[list[SourceFile], list[SourceFile], CheckSettings]":
    from ..check import CheckSettings
    from ..recipe import load_recipe
    from ..training.recipe_checks import check_loss
    from ..training.run import loss_of, source_file

    recipe = load_recipe(path, checks=(check_loss,))
    section = recipe.data
    files = [
        [source_file(source, section) for source in some]
        for some in (section.sources, section.eval_sources)
    ]
    settings = CheckSettings(
        score_scale=section.score_scale,
        loss=recipe.loss.name,
        loss_parameters=recipe.loss.parameters,
        loss_by_source={
            source_file(source, section).source_name: own
            for source in section.sources
            if (own := loss_of(source, recipe.loss.name))
        },
        arguments={
            "max_length": section.max_length,
            "length_policy": section.length_policy,
            "prompt_style": recipe.model.prompt_style,
            "image_min_pixels": recipe.model.image_min_pixels,
            "image_max_pixels": recipe.model.image_max_pixels,
        },
    )
    return files[0], files[1], settings


def _bounds(scale: str | None) -> tuple[float, float] | None:
    if scale is None:
        return None
    try:
        low, high = (float(number) for number in scale.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high:
        raise typer.BadParameter(f"'{scale}' is no scale: write it as 0,10", param_hint="--scale")
    return low, high


def _plain(report: Any) -> dict[str, Any]:
    """Returns a report as JSON knows it: no pictures, and nothing that is no number."""
    shown = [dataclasses.replace(one, pictures=()) for one in report.shown]
    return _finite(dataclasses.asdict(dataclasses.replace(report, shown=shown)))  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

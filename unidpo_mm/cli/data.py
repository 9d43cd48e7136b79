"""`unidpo-mm data`: check preference data, preview rows, convert formats."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import counted
from .data_values import bounds_of, columns_of, plain_report
from .outputs import check_writable, keep_sources, write

if TYPE_CHECKING:
    from ..check import CheckOptions
    from ..data.load import DataFiles, Loaded

__all__ = ["data"]

DATA_FILES = {".yaml", ".yml", ".json", ".jsonl", ".parquet", ".arrow", ".csv", ".gz"}
"""Suffixes of files that cannot be an override after a recipe."""

data = typer.Typer(
    help="Check preference data, preview it as a model sees it, or convert it.",
    no_args_is_help=True,
)


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Files, directories, data sets on a hub, or one recipe (.yaml), which overrides "
        "may follow, for example data.max_length=2048.",
        metavar="SOURCE",
    ),
]
Images = Annotated[str | None, typer.Option(help="Directory of the image files.")]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Format of the sources. [default: detected from the columns]"),
]
Split = Annotated[str | None, typer.Option(help="Split of a data set on a hub.")]
Subset = Annotated[
    str | None,
    typer.Option(help="Configuration of a data set on a hub, or entry of a dataset_info.json."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="NAME=COLUMN for a column with another name, for example prompt=question; repeatable.",
    ),
]
Scale = Annotated[
    str | None, typer.Option(help="Minimum and maximum score of the sources, for example 0,10.")
]
LossName = Annotated[
    str | None, typer.Option("--loss", help="Loss to check for. [default: uni_dpo]")
]
Model = Annotated[
    str | None,
    typer.Option(help="Model (path or hub name) for lengths in tokens and initial weights."),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Maximum number of tokens of a row, with --model.")
]


@data.command("check", epilog="Example: unidpo-mm data check recipe.yaml data.max_length=2048")
def check(  # noqa: PLR0917, one parameter per option
    sources: Sources,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", help="Held-out data, to check for overlap; repeatable."),
    ] = None,
    images: Images = None,
    format_name: FormatName = None,
    split: Split = None,
    subset: Subset = None,
    columns: Columns = None,
    scale: Scale = None,
    loss: LossName = None,
    model: Model = None,
    max_length: MaxLength = None,
    sample: Annotated[
        int,
        typer.Option(
            "--weight-rows",
            help="Number of rows for which --model computes initial weights; 0 skips them.",
            min=0,
        ),
    ] = 64,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File for all results as JSON.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="File for an HTML page with charts.")] = None,
) -> None:
    """Read all rows and images, and report problems, warnings and statistics.

    A recipe is checked as train checks it, up to the weights of the model. The exit code is 0 if a
    run could start and 2 if there are problems, as for train.
    """
    from rich.console import Console

    from ..check import check_data
    from ..check.text import print_report
    from ..errors import DataError

    outputs = ((json_file, "--json"), (html, "--html"))
    for path, option in outputs:
        check_writable(path, option)
    if json_file is not None and json_file == html:
        raise typer.BadParameter(f"'{html}' is also the file of --json", param_hint="--html")
    named = {
        **_source_options(images, format_name, split, subset, columns),
        "--scale": scale,
        "--loss": loss,
        "--held-out": held_out,
    }
    files, eval_files, options = _read(sources, named, as_a_run=True)
    paths = [source.path for source in (*files.sources, *eval_files.sources)]
    for path, option in outputs:
        keep_sources(path, option, [*sources, *paths])
    options = _with_length(options, max_length)
    report = check_data(
        files, dataclasses.replace(options, model=model, sample=sample), held_out=eval_files
    )
    console = Console()
    print_report(report, console if console.width > 120 else Console(width=120))
    if json_file is not None:
        write(json_file, json.dumps(plain_report(report), indent=2), "--json")
    if html is not None:
        from ..check.page import page

        title = f"Data check: {', '.join(Path(source).name for source in sources)}"
        write(html, page(report, title=title), "--html")
    if report.problems:
        raise DataError(report.problems)


@data.command(
    "preview", epilog="Example: unidpo-mm data preview pairs.jsonl --model org/model --limit 2"
)
def preview(  # noqa: PLR0917, one parameter per option
    sources: Sources,
    model: Annotated[str, typer.Option(help="Model (path or hub name) whose tokens are shown.")],
    limit: Annotated[int, typer.Option(help="Maximum number of rows.", min=1)] = 3,
    start: Annotated[int, typer.Option(help="First row, from 1.", min=1)] = 1,
    images: Images = None,
    format_name: FormatName = None,
    split: Split = None,
    subset: Subset = None,
    columns: Columns = None,
    max_length: MaxLength = None,
) -> None:
    """Show rows as the model sees them, with colors for prompt, images and responses."""
    from rich.console import Console

    from ..check.preview import preview as preview_row
    from ..data.load import load_rows
    from ..modeling.load import load_family_and_adapter
    from ..training.prepare import read_options

    named = _source_options(images, format_name, split, subset, columns)
    files, _, options = _read(sources, named)
    all_rows = load_rows(files.sources, read_options(files, options.args))
    if start > len(all_rows):
        verb = "is" if len(all_rows) == 1 else "are"
        text = f"there {verb} only {counted(len(all_rows), 'row')}"
        raise typer.BadParameter(text, param_hint="--start")
    _, adapter = load_family_and_adapter(model, _with_length(options, max_length).args)
    console = Console()
    for row in all_rows[start - 1 : start - 1 + limit]:
        for line in preview_row(row, adapter):
            console.print(line, soft_wrap=True)
        console.print()


@data.command(
    "convert", epilog="Example: unidpo-mm data convert pairs.parquet --output pairs.jsonl"
)
def convert(  # noqa: PLR0917, one parameter per option
    sources: Sources,
    output: Annotated[Path, typer.Option(help="File to write, .jsonl.")],
    to: Annotated[Literal["native", "trl"], typer.Option(help="Format to write.")] = "native",
    images: Images = None,
    format_name: FormatName = None,
    split: Split = None,
    subset: Subset = None,
    columns: Columns = None,
    scale: Scale = None,
    skip_invalid: Annotated[
        bool,
        typer.Option("--skip-invalid", help="Skip and list rows with problems, write the others."),
    ] = False,
) -> None:
    """Convert preference data to the native format or to that of TRL."""
    from ..check.run import writable_rows
    from ..config.loss_aliases import resolve_loss
    from ..data.convert import write_rows
    from ..data.load import read_sources
    from ..data.scores import zero_weight_problems
    from ..errors import DataError, Problem, grouped
    from ..training.prepare import read_options

    # an existing file may be one of the sources, in a directory, recipe or registry
    check_writable(output, "--output", make=True, replace=False)
    named = {
        **_source_options(images, format_name, split, subset, columns),
        "--scale": scale,
    }
    files, _, options = _read(sources, named)
    loaded = read_sources(files.sources, read_options(files, options.args))
    rows, refused, missing = writable_rows(loaded.rows, options)
    problems = [*loaded.problems, *refused]
    if loaded.source_problems or (problems and not skip_invalid):
        raise DataError([*problems, *zero_weight_problems(loaded.rows)])
    if skip_invalid:
        rows = [row for number, row in enumerate(rows) if number not in missing]
        problems += [problem for row_problems in missing.values() for problem in row_problems]
        missing = {}
    if not rows:
        remedy = "Fix the rows with problems"
        raise DataError(
            [*problems, Problem(str(output), "there are no valid rows to write", remedy)]
        )
    if no_weight := zero_weight_problems(rows):
        raise DataError(no_weight)
    for line, _ in grouped(problems):
        typer.echo(f"skipped: {line}", err=True)
    for problem in list(missing.values())[:1]:
        loss, _ = resolve_loss(options.args)
        text = f"a run with the loss '{loss}' would refuse {len(missing):,} of the rows"
        typer.echo(f"{text}, which --skip-invalid skips, for example {problem[0]}", err=True)
    lines = write_rows(rows, output, to)
    _print_skipped(loaded, len(loaded.rows) - len(rows))
    written = f"{counted(lines, 'line')} from {counted(len(rows), 'row')}"
    typer.echo(f"{output}: {written}, format {to}")


def _print_skipped(loaded: "Loaded", skipped_later: int) -> None:
    """Print the reports of sources and the number of skipped rows, with those `skipped_later`."""
    skipped = sum(report.refused for report in loaded.reports) + skipped_later
    if skipped:
        records = sum(report.records for report in loaded.reports)
        typer.echo(f"{skipped:,} of {counted(records, 'row')} skipped because of problems")
    for report in loaded.reports:
        for sentence in report.sentences():
            typer.echo(f"source '{report.source}': {sentence}")


def _source_options(
    images: str | None,
    format_name: str | None,
    split: str | None,
    subset: str | None,
    columns: list[str] | None,
) -> dict[str, Any]:
    """Return the options that every command has for its sources, by name."""
    return {
        "--images": images,
        "--format": format_name,
        "--split": split,
        "--subset": subset,
        "--column": columns,
    }


def _read(
    sources: list[str], options: Mapping[str, Any], *, as_a_run: bool = False
) -> "tuple[DataFiles, DataFiles, CheckOptions]":
    """Return sources, held-out sources and options from a recipe or from the command line.

    Args:
        sources: Files, or a recipe and overrides of its keys.
        options: Option of the command line -> its value; data files only.
        as_a_run: Whether a recipe is checked as a run checks it.
    """
    from ..check import CheckOptions
    from ..config import ScoreOptions, SourceOptions
    from ..config.python import UniDPOConfig
    from ..data.load import DataFiles

    held_out, loss = options.get("--held-out") or [], options.get("--loss")
    if not all(source.strip() for source in (*sources, *held_out)):
        raise typer.BadParameter("the name of a source is empty", param_hint="SOURCE")
    recipes = [source for source in sources if Path(source).suffix in (".yaml", ".yml")]
    if recipes:
        conflicts = [name for name, value in options.items() if value]
        others = [source for source in sources[1:] if not _is_override(source)]
        if sources[0] not in recipes or others or conflicts:
            text = (
                f"a recipe cannot be combined with {', '.join(conflicts) or 'other sources'}; use "
                "the recipe, with overrides if needed, or data files"
            )
            raise typer.BadParameter(text, param_hint="SOURCE")
        return _read_recipe(Path(recipes[0]), sources[1:], as_a_run=as_a_run)
    common: dict[str, Any] = {
        **{name: options[f"--{name}"] for name in ("images", "format", "split", "subset")},
        "columns": columns_of(options["--column"] or []),
        "scores": ScoreOptions(scale=bounds_of(options.get("--scale"))),
    }
    args = UniDPOConfig(output_dir="unused", report_to="none", loss=loss or "uni_dpo")
    files, eval_files = (
        DataFiles(sources=[SourceOptions(path=path, **common) for path in paths])
        for paths in (sources, held_out)
    )
    return files, eval_files, CheckOptions(args=args, any_loss=loss is None)


def _is_override(word: str) -> bool:
    """Return whether a word after a recipe is intended as an override, even if it is misspelled."""
    if "=" in word:
        return True
    return not Path(word).exists() and Path(word).suffix not in DATA_FILES


def _read_recipe(
    path: Path, overrides: Sequence[str] = (), *, as_a_run: bool = True
) -> "tuple[DataFiles, DataFiles, CheckOptions]":
    from ..check import CheckOptions
    from ..config import load_recipe
    from ..config.checks.recipe import ALL_CHECKS, check_loss
    from ..config.shipped import shipped_recipe

    path = path if path.exists() else shipped_recipe(str(path))
    recipe = load_recipe(path, overrides, checks=ALL_CHECKS if as_a_run else (check_loss,))

    from ..config.from_recipe import config_of  # torch, so after the checks
    from ..training.run import data_files, run_settings

    args = run_settings(recipe).args if as_a_run else config_of(recipe, data_only=True)
    model = recipe.model
    options = CheckOptions(args=args, processor=model.name_or_path, lora=model.lora)
    return *data_files(recipe), options


def _with_length(options: "CheckOptions", max_length: int | None) -> "CheckOptions":
    if max_length is None:
        return options
    return dataclasses.replace(
        options, args=dataclasses.replace(options.args, max_length=max_length)
    )

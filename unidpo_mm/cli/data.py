"""`unidpo-mm data`: look at preference data before a run does, show rows, write other formats."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import counted
from .data_values import bounds_of, columns_of, plain_report
from .outputs import check_writable, keep_sources, write

if TYPE_CHECKING:
    from ..check import CheckSettings
    from ..data.load import Loaded, SourceFile

__all__ = ["data"]

DATA_FILES = {".yaml", ".yml", ".json", ".jsonl", ".parquet", ".arrow", ".csv", ".gz"}
"""Endings of what cannot be an override after a recipe."""

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
        help="Files, directories, data sets on a hub, or one recipe (.yaml), which overrides "
        "may follow, for example data.max_length=2048.",
        metavar="SOURCE...",
        show_default=False,
    ),
]
Images = Annotated[
    str | None, typer.Option(help="Folder that image paths start from.", show_default=False)
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Format of the sources; found by the columns if left out."),
]
Split = Annotated[
    str | None, typer.Option(help="Split of a data set on a hub.", show_default=False)
]
Subset = Annotated[
    str | None,
    typer.Option(
        help="Configuration on a hub, or entry of a dataset_info.json.", show_default=False
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Name of a column in the files, as in prompt=question; can be repeated.",
        show_default=False,
    ),
]
Scale = Annotated[
    str | None,
    typer.Option(help="Lowest and highest score of the sources, as in 0,10.", show_default=False),
]
LossName = Annotated[
    str | None,
    typer.Option("--loss", help="The loss to check for; uni_dpo if left out.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(help="A model: lengths in tokens, and its first weights.", show_default=False),
]
MaxLength = Annotated[
    int | None, typer.Option(help="Most tokens of a row, with --model.", show_default=False)
]


@data.command("check", epilog="Example: unidpo-mm data check recipe.yaml data.max_length=2048")
def check(  # noqa: PLR0917, one parameter an option
    sources: Sources,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--eval", help="Held-out data, to look for overlap.", show_default=False),
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
        int, typer.Option(help="Rows that the model scores; 0 for none.", min=0)
    ] = 64,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write everything here.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with charts here.", show_default=False)
    ] = None,
) -> None:
    """Read every row and image and report what is wrong, what is odd, and what a run would see.

    A recipe is examined as train examines it, up to the weights of the model. The exit code is 0
    if a run could start and 2 if it would refuse to, as for train.
    """
    from rich.console import Console

    from ..check import check_data
    from ..check.text import print_report
    from ..errors import DataError

    for path, option in ((json_file, "--json"), (html, "--html")):
        check_writable(path, option)
    if json_file is not None and json_file == html:
        raise typer.BadParameter(f"'{html}' is that of --json, too", param_hint="--html")
    said = _Said(images, format_name, split, subset, columns, scale, loss)
    files, eval_files, settings = _read(sources, held_out or [], said, as_a_run=True)
    for path, option in ((json_file, "--json"), (html, "--html")):
        keep_sources(path, option, [*sources, *(file.path for file in (*files, *eval_files))])
    settings = _with_length(settings, max_length)
    report = check_data(
        files, dataclasses.replace(settings, model=model, sample=sample), held_out=eval_files
    )
    console = Console()
    print_report(report, console if console.width > 120 else Console(width=120))
    if json_file is not None:
        write(json_file, json.dumps(plain_report(report), indent=2), "--json")
    if html is not None:
        from ..check.page import page

        title = f"Data check: {', '.join(Path(source).name for source in sources)}"
        text = page(report, title=title)
        write(html, text, "--html")
    if report.problems:
        raise DataError(report.problems)


@data.command(
    "preview", epilog="Example: unidpo-mm data preview pairs.jsonl --model org/model --rows 2"
)
def preview(  # noqa: PLR0917, one parameter an option
    sources: Sources,
    model: Annotated[
        str, typer.Option(help="The model whose tokens are shown.", show_default=False)
    ],
    rows: Annotated[int, typer.Option(help="How many rows.", min=1)] = 3,
    start: Annotated[int, typer.Option(help="The first of them, from 1.", min=1)] = 1,
    images: Images = None,
    format_name: FormatName = None,
    split: Split = None,
    subset: Subset = None,
    columns: Columns = None,
    max_length: MaxLength = None,
) -> None:
    """Show rows as the model will see them, tokens coloured by what they are."""
    from rich.console import Console

    from ..check.preview import preview as preview_row
    from ..data.load import load_rows
    from ..training.config import UniDPOConfig
    from ..training.setup import load_family_and_adapter

    said = _Said(images, format_name, split, subset, columns)
    files, _, settings = _read(sources, [], said)
    everything = load_rows(files, score_scale=settings.score_scale)
    if start > len(everything):
        there = "is" if len(everything) == 1 else "are"
        text = f"there {there} {counted(len(everything), 'row')}"
        raise typer.BadParameter(text, param_hint="--start")
    given = _with_length(settings, max_length).arguments
    arguments = UniDPOConfig(output_dir="unused", report_to="none", **given)
    _, adapter = load_family_and_adapter(model, arguments)
    console = Console()
    for row in everything[start - 1 : start - 1 + rows]:
        for line in preview_row(row, adapter):
            console.print(line, soft_wrap=True)
        console.print()


@data.command("convert", epilog="Example: unidpo-mm data convert pairs.parquet --out pairs.jsonl")
def convert(  # noqa: PLR0917, one parameter an option
    sources: Sources,
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.", show_default=False)],
    to: Annotated[Layout, typer.Option(help="Our format, or TRL's.")] = Layout.NATIVE,
    images: Images = None,
    format_name: FormatName = None,
    split: Split = None,
    subset: Subset = None,
    columns: Columns = None,
    scale: Scale = None,
    leave_out_refused: Annotated[
        bool,
        typer.Option(
            "--leave-out-refused", help="Write the rest where rows are refused, and say which are."
        ),
    ] = False,
) -> None:
    """Write preference data of any format in ours, or in TRL's."""
    from ..check.writable import writable_rows
    from ..data.convert import write_rows
    from ..data.load import read_sources
    from ..data.scores import without_weight
    from ..errors import DataError, Problem, grouped

    check_writable(out, "--out", make=True)
    if out.exists():  # it may be one of the sources, named by a folder, recipe or registry
        text = f"'{out}' is there already: name another file, or remove it first"
        raise typer.BadParameter(text, param_hint="--out")
    said = _Said(images, format_name, split, subset, columns, scale)
    files, _, settings = _read(sources, [], said)
    loaded = read_sources(files, score_scale=settings.score_scale)
    rows, refused, lacking = writable_rows(loaded.rows, settings)
    problems = [*loaded.problems, *refused]
    if loaded.not_of_rows or (problems and not leave_out_refused):
        raise DataError([*problems, *without_weight(loaded.rows)])
    if leave_out_refused:
        rows = [row for number, row in enumerate(rows) if number not in lacking]
        problems += [problem for found in lacking.values() for problem in found]
        lacking = {}
    if not rows:
        remedy = "Correct the rows that are refused"
        raise DataError([*problems, Problem(str(out), "no row is left to write", remedy)])
    if wrong := without_weight(rows):
        raise DataError(wrong)
    for line, _ in grouped(problems):
        typer.echo(f"left out: {line}", err=True)
    for problem in list(lacking.values())[:1]:
        text = f"a run with the loss '{settings.loss}' refuses {len(lacking):,} of them"
        typer.echo(f"{text}, which --leave-out-refused skips, for example {problem[0]}", err=True)
    lines = write_rows(rows, out, to.value)
    _tell_left_out(loaded, len(loaded.rows) - len(rows))
    written = f"{counted(lines, 'line')} of {counted(len(rows), 'row')}"
    typer.echo(f"{out}: {written}, format {to.value}")


def _tell_left_out(loaded: "Loaded", more: int) -> None:
    """Print how many rows were left out, and what the sources' policies did.

    Args:
        loaded: What was read.
        more: Rows left out after they were read.
    """
    refused = sum(report.refused for report in loaded.reports) + more
    if refused:
        records = sum(report.records for report in loaded.reports)
        typer.echo(f"{refused:,} of {counted(records, 'row')} left out: refused")
    for report in loaded.reports:
        for sentence in report.sentences():
            typer.echo(f"source '{report.source}': {sentence}")


@dataclass(frozen=True)
class _Said:
    """What the command line says of the sources."""

    images: str | None = None
    format_name: str | None = None
    split: str | None = None
    subset: str | None = None
    columns: list[str] | None = None
    scale: str | None = None
    loss: str | None = None

    @property
    def options(self) -> list[str]:
        """The options that were given."""
        names = {"format_name": "format", "columns": "column"}
        given = (field.name for field in dataclasses.fields(self) if getattr(self, field.name))
        return [f"--{names.get(name, name)}" for name in given]


def _read(
    sources: list[str], held_out: list[str], said: _Said, *, as_a_run: bool = False
) -> "tuple[list[SourceFile], list[SourceFile], CheckSettings]":
    """Return sources and settings of a recipe, or of what the command line says.

    Args:
        sources: Files, or a recipe and overrides of its keys.
        held_out: Held-out files.
        said: Options.
        as_a_run: Whether a recipe is examined as a run examines it.
    """
    from ..check import CheckSettings
    from ..data.load import SourceFile
    from ..data.scores import ScoreOptions

    if not all(source.strip() for source in (*sources, *held_out)):
        raise typer.BadParameter("a source has no name", param_hint="SOURCE")
    recipes = [source for source in sources if Path(source).suffix in (".yaml", ".yml")]
    if recipes:
        options = [*said.options, *(["--eval"] if held_out else [])]
        others = [source for source in sources[1:] if not _is_override(source)]
        if sources[0] not in recipes or others or options:
            beside = ", ".join(options) or "other sources"
            text = f"a recipe lists all of its sources; remove {beside}, or pass the files alone"
            raise typer.BadParameter(text, param_hint="SOURCE")
        return _of_recipe(Path(recipes[0]), sources[1:], as_a_run=as_a_run)
    common: dict[str, Any] = {
        "images": said.images,
        "format": said.format_name,
        "split": said.split,
        "subset": said.subset,
        "columns": columns_of(said.columns or []),
        "scores": ScoreOptions(scale=bounds_of(said.scale)),
    }
    files = [[SourceFile(path=path, **common) for path in some] for some in (sources, held_out)]
    settings = CheckSettings(loss=said.loss or "uni_dpo", loss_named=said.loss is not None)
    return files[0], files[1], settings


def _is_override(word: str) -> bool:
    """Return whether a word after a recipe is meant to be an override, even if it is misspelled."""
    if "=" in word:
        return True
    return not Path(word).exists() and Path(word).suffix not in DATA_FILES


def _of_recipe(
    path: Path, overrides: Sequence[str] = (), *, as_a_run: bool = True
) -> "tuple[list[SourceFile], list[SourceFile], CheckSettings]":
    from ..check import CheckSettings
    from ..recipe import load_recipe
    from ..recipe.shipped import shipped_recipe
    from ..training.recipe_checks import ALL_CHECKS, check_loss

    path = path if path.exists() else shipped_recipe(str(path))
    recipe = load_recipe(path, overrides, checks=ALL_CHECKS if as_a_run else (check_loss,))

    from ..training.examine import part_problems  # torch, so after the checks
    from ..training.recipe_arguments import loss_by_source, source_file
    from ..training.run import checked_settings, lora_settings

    part_check = None
    if as_a_run:
        arguments, _ = checked_settings(recipe)
        part_check = functools.partial(part_problems, arguments, lora_settings(recipe))
    section = recipe.data
    files = [
        [source_file(source, section) for source in some]
        for some in (section.sources, section.eval_sources)
    ]
    settings = CheckSettings(
        score_scale=section.score_scale,
        loss=recipe.loss.name,
        loss_parameters=recipe.loss.parameters,
        loss_by_source=loss_by_source(recipe),
        loss_named=True,
        max_skipped_fraction=section.images.max_skipped_fraction,
        processor=recipe.model.name_or_path,
        part_check=part_check,
        arguments={
            "adapter": recipe.model.adapter,
            "base_name_or_path": recipe.model.base_name_or_path,
            "model_init_kwargs": {
                "trust_remote_code": recipe.model.trust_remote_code,
                **recipe.model.init_kwargs,
            },
            "preflight": section.preflight,
            "max_length": section.max_length,
            "length_policy": section.length_policy,
            "prompt_style": recipe.model.prompt_style,
            "chat_template_kwargs": recipe.model.chat_template_kwargs or None,
            "image_min_pixels": recipe.model.image_min_pixels,
            "image_max_pixels": recipe.model.image_max_pixels,
        },
    )
    return files[0], files[1], settings


def _with_length(settings: "CheckSettings", max_length: int | None) -> "CheckSettings":
    if max_length is None:
        return settings
    arguments = {**settings.arguments, "max_length": max_length}
    return dataclasses.replace(settings, arguments=arguments)

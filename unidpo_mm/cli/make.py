"""`unidpo-mm data make`: make preference data from prompts or from data without scores."""

import re
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["make"]


def make(  # noqa: PLR0917, one parameter per option
    recipe: Annotated[
        Path, typer.Argument(help="A recipe of data to make (YAML).", metavar="RECIPE")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Keys of the recipe to override, for example sample.n=8.",
            metavar="SECTION.KEY=VALUE",
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what it will cost, and load no weights.")
    ] = False,
    price: Annotated[
        str | None,
        typer.Option(
            help="With --plan: price of a million tokens that a judge reads and writes, for "
            "example 2.5,10."
        ),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="With --plan: measure all prompts, not 200 of them."),
    ] = False,
    pilot: Annotated[
        int | None,
        typer.Option(
            help="Use this number of prompts only, in the directory `pilot-N` of the output.", min=1
        ),
    ] = None,
    until: Annotated[
        str, typer.Option(help="Last stage to run: prompts, sample, score or pair.")
    ] = "pair",
    share: Annotated[
        str | None,
        typer.Option(help="Share of the responses to generate and score, for example 2/8."),
    ] = None,
    merge: Annotated[
        bool,
        typer.Option("--merge-shares", help="Merge the shares after all of them are finished."),
    ] = False,
) -> None:
    """Make preference data: sample responses, score them, and form pairs.

    The same command resumes an interrupted run; what is finished is not repeated. Several
    processes: accelerate launch -m unidpo_mm data make RECIPE
    """
    from ..pipelines.load import load_make_recipe
    from ..pipelines.recipe import STAGES
    from ..plugins import suggestion

    if until not in STAGES:
        text = f"there is no stage '{until}'{suggestion(until, STAGES)}"
        raise typer.BadParameter(f"{text}; use one of {', '.join(STAGES)}", param_hint="--until")
    if (price is not None or exact) and not plan:
        hint = "--exact" if price is None else "--price"
        raise typer.BadParameter("has no effect without --plan", param_hint=hint)
    number, of = _share(share)
    if share is not None and (merge or pilot is not None):
        other = "--merge-shares" if merge else "--pilot"
        raise typer.BadParameter(f"cannot be combined with {other}", param_hint="--share")
    making = load_make_recipe(recipe, overrides or ())

    if plan:
        from ..pipelines.plan_command import show_plan

        show_plan(making, price=_price(price), exact=exact)
        return
    from ..pipelines.command import make_and_show

    make_and_show(
        making,
        command=f"unidpo-mm data make {recipe}",
        until=STAGES[STAGES.index(until)],
        pilot=pilot,
        share=(number, of),
        merge=merge,
    )


def _share(text: str | None) -> tuple[int, int]:
    if text is None:
        return 1, 1
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        problem = f"'{text}' is not a share; use two numbers such as 2/8, the first at least 1"
        raise typer.BadParameter(problem, param_hint="--share")
    return int(match[1]), int(match[2])


def _price(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        read, written = map(float, text.split(","))
    except ValueError:
        problem = f"'{text}' is not two numbers; use for example 2.5,10"
        raise typer.BadParameter(problem, param_hint="--price") from None
    return read, written

"""`unidpo-mm replay`: recompute a step whose loss or gradient was not finite."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["replay"]

DIFFERENT = 1
"""Exit code if the result differs from the recorded one."""


def replay(
    dump: Annotated[
        Path,
        typer.Argument(
            help="A directory nonfinite-step-N in the output directory of a run.", metavar="DUMP"
        ),
    ],
    device: Annotated[str, typer.Option(help="Device to run on, for example cuda.")] = "cpu",
) -> None:
    """Recompute a step whose loss or gradient was not finite, and print the loss of each row."""
    from ..training.replay import replay as replay_step

    result = replay_step(dump, device=device)
    for unit in result.units:
        mark = "" if unit.same else "  differs"
        typer.echo(f"{unit.row}: loss {unit.recorded:.6g}, now {unit.replayed:.6g}{mark}")
    recorded = "unknown" if result.recorded_norm is None else f"{result.recorded_norm:.6g}"
    typer.echo(f"gradient norm {recorded}, now {result.replayed_norm:.6g}")
    if result.gradients:
        typer.echo(f"gradients that are not finite: {', '.join(result.gradients[:5])}")
    if not result.reproduced:
        typer.echo(f"step {result.step} was not reproduced: the results differ")
        raise typer.Exit(DIFFERENT)
    typer.echo(f"step {result.step} was reproduced")

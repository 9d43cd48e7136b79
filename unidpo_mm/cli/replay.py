"""`unidpo-mm replay`: compute again a step that was not finite."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["replay"]

DIFFERENT = 1
"""Exit code if the step came out differently."""


def replay(
    dump: Annotated[
        Path,
        typer.Argument(
            help="A directory nonfinite-step-N that a run wrote.",
            metavar="DUMP",
            show_default=False,
        ),
    ],
    device: Annotated[str, typer.Option(help="Where to compute it, for example cuda.")] = "cpu",
) -> None:
    """Compute a step again whose loss or gradient was not finite, and show each row's loss.

    Example: unidpo-mm replay out/nonfinite-step-120
    """
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
        typer.echo(f"step {result.step} came out differently")
        raise typer.Exit(DIFFERENT)
    typer.echo(f"step {result.step} was reproduced")

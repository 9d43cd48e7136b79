"""`unidpo-mm eval export` and `import`: files of other tools."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_predictions", "import_predictions"]

Tool = Annotated[str, typer.Argument(help="The tool; see `eval list`.", metavar="TOOL")]


def export_predictions(
    tool: Tool,
    data: Annotated[Path, typer.Option(help="The benchmark's data.")],
    predictions: Annotated[
        Path, typer.Option(help='JSONL with one {"id": ..., "response": ...} a line.')
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    model: Annotated[
        str | None,
        typer.Option(help="What the model is called; the file of predictions if left out."),
    ] = None,
) -> None:
    """Write predictions as another tool reads them."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import Asked, load_bridge
    from ..reading.predictions import read_predictions
    from ..reading.rows import read_data

    bridge = load_bridge(tool)
    if bridge.export is None:
        raise typer.BadParameter(f"nothing is written for {bridge.title}", param_hint="TOOL")
    if out.suffix not in bridge.endings:
        endings = " or ".join(bridge.endings)
        raise typer.BadParameter(f"{bridge.title} reads {endings}", param_hint="--out")
    check_writable(out, "--out")
    ids, records = read_data(data)
    said = read_predictions(predictions)
    responses = {own: one.response for own, one in said.by_id.items() if one.error is None}
    name = model or str(said.manifest.get("model") or predictions.stem)
    asked = Asked(model=name, records=records, ids=ids, responses=responses, out=out)
    for text in bridge.export(asked):
        typer.echo(text)
    known = set(ids)
    unknown = [own for own in responses if own not in known]
    if unknown:
        typer.echo(f"predictions of no row, left out: {len(unknown)}, as of '{unknown[0]}'")


def import_predictions(
    tool: Tool,
    file: Annotated[Path, typer.Argument(help="A file of its predictions.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="JSONL to write.")],
    model: Annotated[
        str | None, typer.Option(help="What the model is called.", show_default=False)
    ] = None,
) -> None:
    """Read predictions of another tool, to score them here."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import load_bridge
    from ..reading.rows import write_predictions

    bridge = load_bridge(tool)
    if bridge.read is None:
        raise typer.BadParameter(f"nothing is read of {bridge.title}", param_hint="TOOL")
    check_writable(out, "--out")
    found = bridge.read(file)
    write_predictions(found, out, backend=bridge.title, model=model or file.stem)
    typer.echo(f"predictions: {len(found)}")

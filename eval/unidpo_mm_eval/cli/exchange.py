"""`unidpo-mm eval export` and `import`: files of other tools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["export_predictions", "import_predictions"]

Tool = Annotated[str, typer.Argument(help="The tool; see `eval list`.", metavar="TOOL")]


def export_predictions(
    tool: Tool,
    data: Annotated[Path, typer.Option(help="The benchmark's data.")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    predictions: Annotated[
        Path | None,
        typer.Option(
            help='JSONL with one {"id": ..., "response": ...} a line.', show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="What the model is called; the file of predictions if left out."),
    ] = None,
    task: Annotated[
        str, typer.Option(help="What lmms-eval calls the benchmark.", show_default=False)
    ] = "",
) -> None:
    """Write predictions as another tool reads them."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import Asked, load_bridge
    from ..bridges._rows import read_data
    from ..data.predictions import OPENED, read_predictions

    bridge = load_bridge(tool)
    if bridge.export is None:
        raise typer.BadParameter(f"nothing is written for {bridge.title}", param_hint="TOOL")
    if out.suffix not in bridge.endings:
        endings = " or ".join(bridge.endings)
        raise typer.BadParameter(f"{bridge.title} reads {endings}", param_hint="--out")
    if predictions is None and not bridge.of_data:
        text = f"{bridge.title} reads predictions: name the file"
        raise typer.BadParameter(text, param_hint="--predictions")
    check_writable(out, "--out", make=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    ids, records = read_data(data)
    said = None if predictions is None else read_predictions(predictions)
    responses = (
        {own: one.response for own, one in said.by_id.items() if not one.error} if said else {}
    )
    if bridge.answers_only and said is not None:
        responses, note = _answers(responses, opened=bool(said.manifest.get(OPENED)))
        if note:
            typer.echo(note)
    name = model or str((said and said.manifest.get("model")) or (predictions or data).stem)
    asked = Asked(model=name, records=records, ids=ids, responses=responses, out=out, task=task)
    for text in bridge.export(asked):
        typer.echo(text)
    known = set(ids)
    unknown = [own for own in responses if own not in known]
    if unknown:
        typer.echo(f"predictions of no row, left out: {len(unknown)}, as of '{unknown[0]}'")


def _answers(responses: Mapping[str, str], *, opened: bool) -> tuple[dict[str, str], str]:
    """Return the responses without reasoning, and a note if there is some."""
    from unidpo_mm.reasoning import strip_reasoning

    stripped = {
        sample_id: strip_reasoning(text, opened=opened) for sample_id, text in responses.items()
    }
    some = sum(answer.has_reasoning for answer in stripped.values())
    cut = sum(answer.unclosed for answer in stripped.values())
    note = f"reasoning is removed from {some} responses, of which {cut} end inside it"
    return {sample_id: answer.text for sample_id, answer in stripped.items()}, note if some else ""


def import_predictions(  # noqa: PLR0917, one parameter an option
    tool: Tool,
    file: Annotated[Path, typer.Argument(help="A file of its predictions.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="JSONL to write.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="The data they were made of: questions are compared, row numbers become ids.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="What the model is called.", show_default=False)
    ] = None,
    tool_version: Annotated[
        str | None, typer.Option(help="Version of the tool, kept with them.", show_default=False)
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="By which prompts and settings they were made.")
    ] = "foreign",
) -> None:
    """Read predictions of another tool, to score them here."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import load_bridge
    from ..bridges._matching import matched
    from ..bridges._rows import read_data, write_predictions

    bridge = load_bridge(tool)
    if bridge.read is None:
        raise typer.BadParameter(f"nothing is read of {bridge.title}", param_hint="TOOL")
    check_writable(out, "--out", make=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    found = bridge.read(file)
    kept = [one.prediction for one in found]
    if data is not None:
        kept = matched(found, *read_data(data))
    elif any(one.by_row for one in found):
        typer.echo("ids are numbers of rows, from 0: name the --data to get its ids")
    backend = f"{bridge.title} {tool_version}" if tool_version else bridge.title
    write_predictions(kept, out, backend=backend, model=model or file.stem, protocol=protocol)
    typer.echo(f"predictions: {len(kept)}")

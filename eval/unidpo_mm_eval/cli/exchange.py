"""Files of other tools: `unidpo-mm eval export` and `import`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from . import options as opt

Tool = Annotated[str, typer.Argument(help="The tool; see `eval list`.", metavar="TOOL")]


def run_export(
    tool: Tool,
    data: opt.Data,
    output: Annotated[Path, typer.Option(help="File to write.")],
    predictions: Annotated[Path | None, opt.option(opt.PREDICTIONS)] = None,
    name: opt.Name = None,
    task: Annotated[str, opt.option("Name of the benchmark in lmms-eval.")] = "",
) -> None:
    """Write predictions in the format of another tool."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import ExportJob, load_bridge
    from ..bridges._files import read_data
    from ..data.predictions import OPENED, read_predictions

    bridge = load_bridge(tool)
    if bridge.export is None:
        raise typer.BadParameter(f"no export to {bridge.title}", param_hint="TOOL")
    if output.suffix not in bridge.endings:
        text = f"{bridge.title} reads {' or '.join(bridge.endings)}"
        raise typer.BadParameter(text, param_hint="--output")
    if predictions is None and not bridge.of_data:
        text = f"{bridge.title} reads predictions: use --predictions for their file"
        raise typer.BadParameter(text, param_hint="--predictions")
    check_writable(output, "--output", make=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    ids, records = read_data(data)
    source = None if predictions is None else read_predictions(predictions)
    responses = {i: p.response for i, p in source.by_id.items() if not p.error} if source else {}
    if bridge.answers_only and source is not None:
        responses = _without_reasoning(responses, opened=bool(source.manifest.get(OPENED)))
    job = ExportJob(
        model=name or str((source and source.manifest.get("model")) or (predictions or data).stem),
        records=records,
        ids=ids,
        responses=responses,
        output=output,
        task=task,
    )
    for text in bridge.export(job):
        typer.echo(text)
    unknown = sorted(responses.keys() - set(ids))
    if unknown:
        typer.echo(
            f"predictions without a row, skipped: {len(unknown)}, for example '{unknown[0]}'"
        )


def _without_reasoning(responses: Mapping[str, str], *, opened: bool) -> dict[str, str]:
    """Return the responses without reasoning; print how many contain some."""
    from unidpo_mm.reasoning import strip_reasoning

    stripped = {i: strip_reasoning(text, opened=opened) for i, text in responses.items()}
    count = sum(answer.has_reasoning for answer in stripped.values())
    unclosed = sum(answer.unclosed for answer in stripped.values())
    if count:
        typer.echo(f"removed reasoning from {count} responses, of which {unclosed} end inside it")
    return {i: answer.text for i, answer in stripped.items()}


def run_import(  # noqa: PLR0917 - one parameter per option
    tool: Tool,
    file: Annotated[Path, typer.Argument(help="A file of its predictions.", metavar="FILE")],
    output: Annotated[Path, typer.Option(help="File to write, .jsonl.")],
    data: Annotated[
        Path | None,
        opt.option("Data of the benchmark, to compare questions and replace row numbers by ids."),
    ] = None,
    name: Annotated[
        str | None, opt.option("Name of the model in tables and files. [default: that of FILE]")
    ] = None,
    tool_version: Annotated[
        str | None, opt.option("Version of the tool, which is recorded.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="Prompts and rules of the predictions, which are recorded.")
    ] = "foreign",
) -> None:
    """Read predictions of another tool, in order to score them here."""
    from unidpo_mm.cli.outputs import check_writable

    from ..bridges import load_bridge
    from ..bridges._files import match_ids, read_data, write_predictions

    bridge = load_bridge(tool)
    if bridge.read is None:
        raise typer.BadParameter(f"no import from {bridge.title}", param_hint="TOOL")
    check_writable(output, "--output", make=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    responses = bridge.read(file)
    predictions = [response.prediction for response in responses]
    if data is not None:
        predictions = match_ids(responses, *read_data(data))
    elif any(response.by_row for response in responses):
        typer.echo("the ids are row numbers, from 0: use --data to replace them by the data's ids")
    backend = f"{bridge.title} {tool_version}" if tool_version else bridge.title
    model = name or file.stem
    write_predictions(predictions, output, backend=backend, model=model, protocol=protocol)
    typer.echo(f"predictions: {len(predictions)}")

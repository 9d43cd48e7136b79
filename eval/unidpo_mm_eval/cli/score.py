"""`unidpo-mm eval score`: what a file of predictions scores on a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Judge, JudgeCache, JudgeKey, JudgeModel, JudgeServer, ProtocolName

__all__ = ["score_predictions"]


def score_predictions(  # noqa: PLR0917, one parameter an option
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="Name of the benchmark; see `eval list`.")
    ],
    data: Annotated[Path, typer.Option(help="Its data: a file or folder.")],
    predictions: Annotated[
        Path, typer.Option(help='JSONL with one {"id": ..., "response": ...} a line.')
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write the result here, as JSON.", show_default=False)
    ] = None,
    protocol: ProtocolName = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="What the model is called; the file of predictions if left out.",
            show_default=False,
        ),
    ] = None,
    subset: Annotated[
        int | None,
        typer.Option(help="Clusters to score, drawn by a fixed seed.", min=1, show_default=False),
    ] = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    judge_cache: JudgeCache = None,
    judge_server: JudgeServer = "auto",
    leave_out_judge_errors: Annotated[
        bool, typer.Option(help="Leave out what the judge did not judge; else it is wrong.")
    ] = False,
) -> None:
    """Score a file of predictions: no model, no network, the same every time."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable

    from ..benchmarks import load_benchmark
    from ..data.predictions import read_predictions
    from ..data.subset import subset as part_of
    from ..protocols import load_protocol
    from ..report.text import print_result
    from ..results.grading import score
    from ..results.result import write_result

    check_writable(output, "--output")
    found = load_benchmark(benchmark)
    rules = load_protocol(protocol or next(iter(found.families)))
    found.rules(rules.scoring)
    samples = found.read(data, found.rules(rules.scoring).by_judge)
    if subset is not None:
        samples = part_of(samples, subset)
    if not found.rules(rules.scoring).by_judge and (judge or leave_out_judge_errors):
        text = f"{found.title} is scored by rules under {rules.id}"
        raise typer.BadParameter(text, param_hint="--judge")
    who = None
    if judge is not None:
        from ..judge.judges import find_judge

        who = find_judge(
            judge, model=judge_model, key_name=judge_key, cache=judge_cache, server=judge_server
        )
    result = score(
        found,
        samples,
        read_predictions(predictions),
        rules,
        model=model,
        judge=who,
        leave_out_errors=leave_out_judge_errors,
    )
    if output is not None:
        write_result(result, output)
    print_result(result, Console())

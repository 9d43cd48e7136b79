"""Commands that score predictions: `unidpo-mm eval score` and `duel`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as opt


def run_score(  # noqa: PLR0917 - one parameter per option
    benchmark: opt.BenchmarkName,
    data: opt.Data,
    predictions: Annotated[Path, opt.option(opt.PREDICTIONS)],
    output: Annotated[Path | None, opt.option("File for the result as JSON.")] = None,
    protocol: opt.ProtocolName = None,
    scorer: opt.ScorerName = None,
    name: opt.Name = None,
    limit: opt.Limit = None,
    judge: opt.Judge = None,
    judge_model: opt.JudgeModel = None,
    judge_key: opt.JudgeKey = None,
    judge_cache: opt.JudgeCache = None,
    judge_server: opt.JudgeServer = "auto",
    skip_judge_errors: Annotated[
        bool,
        typer.Option(
            "--skip-judge-errors",
            help="Skip samples without a verdict; otherwise they count as wrong.",
        ),
    ] = False,
) -> None:
    """Score a file of predictions; no model is loaded."""
    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable

    from ..benchmarks import load_benchmark, with_scorer
    from ..data.dataset import draw_clusters
    from ..data.predictions import read_predictions
    from ..judge.judges import load_judge
    from ..protocols import load_protocol
    from ..report.text import print_result
    from ..results.grading import grade_predictions
    from ..results.result import write_result

    check_writable(output, "--output")
    kind = load_benchmark(benchmark)
    rules = load_protocol(protocol or next(iter(kind.scorers)))
    if scorer is not None:
        rules = with_scorer(rules, kind, scorer)
    uses_judge = kind.scorer(rules.scoring).uses_judge
    samples = kind.read(data, uses_judge)
    if limit is not None:
        samples = draw_clusters(samples, limit)
    if not uses_judge and (judge or skip_judge_errors):
        text = f"{kind.title} is scored without a judge under {rules.id}"
        raise typer.BadParameter(text, param_hint="--judge")
    options: dict[str, Any] = {"key_name": judge_key, "cache": judge_cache, "server": judge_server}
    result = grade_predictions(
        kind,
        samples,
        read_predictions(predictions),
        rules,
        model=name,
        judge=load_judge(judge, model=judge_model, **options) if judge else None,
        skip_judge_errors=skip_judge_errors,
    )
    if output is not None:
        write_result(result, output)
    print_result(result, Console())


def run_duel(  # noqa: PLR0917 - one parameter per option
    first: Annotated[Path, typer.Argument(help="Predictions of one model.", metavar="A.jsonl")],
    second: Annotated[
        Path, typer.Argument(help="Predictions of the other model.", metavar="B.jsonl")
    ],
    benchmark: opt.BenchmarkName,
    data: opt.Data,
    judge: Annotated[str, opt.option(opt.JUDGE)],
    judge_model: opt.JudgeModel = None,
    judge_key: opt.JudgeKey = None,
    judge_cache: opt.JudgeCache = None,
    judge_server: opt.JudgeServer = "auto",
    images: opt.Images = None,
    output: Annotated[Path | None, opt.option("File for every verdict as JSON.")] = None,
) -> None:
    """Let a judge compare two models' responses, each pair in both orders."""
    import json
    from dataclasses import asdict

    from rich.console import Console
    from rich.markup import escape

    from unidpo_mm.cli.outputs import check_writable, write

    from ..benchmarks import load_benchmark
    from ..data.predictions import read_predictions
    from ..judge.duel import run_duel as compare
    from ..judge.judges import load_judge
    from ..report.text import print_notes, print_table

    check_writable(output, "--output")
    samples = load_benchmark(benchmark).read(data, True)
    pair = read_predictions(first), read_predictions(second)
    names = [str(p.manifest.get("model") or p.path.stem) for p in pair]
    options: dict[str, Any] = {"key_name": judge_key, "cache": judge_cache, "server": judge_server}
    duel = compare(
        samples,
        *pair,
        load_judge(judge, model=judge_model, **options),
        names=(names[0], names[1]),
        images=images,
    )
    console = Console()
    title = f"{duel.names[1]} against {duel.names[0]}, judged by {duel.judge} in both orders"
    console.print(f"[bold]{escape(title)}[/bold]", soft_wrap=True)
    rows = [
        (metric, f"{value:.2f}", f"{interval.low:.2f} to {interval.high:.2f}")
        for metric, value in duel.metrics.items()
        if (interval := duel.intervals[metric])
    ]
    print_table(console, ("metric", "value", "interval"), rows)
    console.print(f"both orders name the same winner: {duel.consistent_rate:.1f} %")
    print_notes(console, duel.notes, style="yellow")
    if output is not None:
        content = asdict(duel) | {"outcomes": {m.id: m.outcome for m in duel.matchups}}
        write(output, json.dumps(content, ensure_ascii=False, indent=1) + "\n", "--output")

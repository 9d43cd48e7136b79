"""`unidpo-mm eval duel`: two files of predictions side by side before a judge."""

from pathlib import Path
from typing import Annotated

import typer

from .options import Images, JudgeCache, JudgeKey, JudgeModel, JudgeServer

__all__ = ["judge_duel"]


def judge_duel(  # noqa: PLR0917, one parameter an option
    first: Annotated[Path, typer.Argument(help="What one model said.", metavar="A.jsonl")],
    second: Annotated[Path, typer.Argument(help="What the other said.", metavar="B.jsonl")],
    benchmark: Annotated[str, typer.Option("--benchmark", "-b", help="See `eval list`.")],
    data: Annotated[Path, typer.Option(help="The benchmark's data.")],
    judge: Annotated[
        str, typer.Option(help="Address of an OpenAI-compatible server, or local:CHECKPOINT.")
    ],
    judge_model: JudgeModel = None,
    judge_key: JudgeKey = None,
    judge_cache: JudgeCache = None,
    judge_server: JudgeServer = "auto",
    images: Images = None,
    output: Annotated[
        Path | None, typer.Option(help="Write every verdict as JSON.", show_default=False)
    ] = None,
) -> None:
    """Let a judge compare two models' answers, each pair in both orders."""
    import json
    from dataclasses import asdict

    from rich.console import Console

    from unidpo_mm.cli.outputs import check_writable, write

    from ..benchmarks import load_benchmark
    from ..data.predictions import read_predictions
    from ..judge.duel import duel
    from ..judge.judges import find_judge
    from ..report.backends import print_duel

    check_writable(output, "--output")
    samples = load_benchmark(benchmark).read(data, True)
    said = read_predictions(first), read_predictions(second)
    names = [str(one.manifest.get("model") or one.path.stem) for one in said]
    who = find_judge(
        judge, model=judge_model, key_name=judge_key, cache=judge_cache, server=judge_server
    )
    found = duel(samples, *said, who, names=(names[0], names[1]), images=images)
    print_duel(found, Console())
    if output is not None:
        content = asdict(found) | {"outcomes": {one.id: one.outcome for one in found.bouts}}
        write(output, json.dumps(content, ensure_ascii=False, indent=1) + "\n", "--output")

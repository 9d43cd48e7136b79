"""The steps of `eval run` and `eval parity`, from a plan to tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from rich.console import Console
from rich.markup import escape

from unidpo_mm.distributed.processes import processes
from unidpo_mm.inference.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from unidpo_mm.inference.endpoint import ChatClient
from unidpo_mm.inference.progress import progress

from ..data.predictions import read_predictions, variables_warning
from ..protocols import Protocol
from ..report.page import comparison_page
from ..report.tables import summary_markdown
from ..report.text import print_result, print_summary
from ..results.comparison import compare
from ..results.result import Result
from ..results.summary import summarize
from .eval_run import (
    EvalRun,
    RunSettings,
    checkpoint_run,
    generate_predictions,
    score_predictions,
    verify_batching,
)
from .plan import EvalPlan
from .served import request_predictions, served_run


def run_plan(
    plan: EvalPlan, *, dtype: str, verify: int = 0, console: Console | None = None, **options: Any
) -> list[Result]:
    """Run a plan, print its results and write them to its output directory.

    Args:
        plan: What to evaluate, from `EvalPlan.build`.
        dtype: Number format of the weights, or ``auto`` for the saved format.
        verify: Number of responses that are generated again without a batch, to compare them.
        console: Where to print; `None` for standard output.
        options: Fields of `RunSettings`, such as `batch_size`, `max_new_tokens` or `overwrite`.

    Returns:
        A result per checkpoint and benchmark, checkpoint by checkpoint.
    """
    settings = RunSettings(protocol=plan.protocol, **options)
    console = console or Console()
    results: list[Result] = []
    for checkpoint in plan.checkpoints:
        results += _run_checkpoint(plan, checkpoint, settings, console, dtype, verify)
        release_memory()  # before the next checkpoint is loaded
    if processes().is_main_process:
        _compare(plan, results, settings, console)
    return results


def _run_checkpoint(
    plan: EvalPlan,
    checkpoint: Checkpoint,
    settings: RunSettings,
    console: Console,
    dtype: str,
    verify: int,
) -> list[Result]:
    """Evaluate one checkpoint on all benchmarks; return the results on the first process."""
    state = processes()
    loaded = load_checkpoint(checkpoint, dtype=dtype, device=state.device)
    results: list[Result] = []
    for source in plan.benchmarks:
        run = checkpoint_run(loaded, source.benchmark, source.read(), settings)
        path = plan.path(checkpoint.name, source.benchmark)
        if state.is_main_process:
            _print_prompt(run, quiet=console.quiet)
        with progress(visible=state.is_main_process and not console.quiet) as on_progress:
            generate_predictions(run, path, settings, on_progress)
        if state.is_main_process:
            results += _score(run, path, plan.protocol, console)
            if verify:
                count, different = verify_batching(run, path, verify)
                text = f"regenerated individually: all {count} responses are equal"
                if different:
                    text = f"[yellow]regenerated individually: {len(different)} of {count} "
                    text += f"responses differ, for example '{escape(different[0])}'[/yellow]"
                console.print(text, soft_wrap=True)
    return results


def run_served(plan: EvalPlan, client: ChatClient, **options: Any) -> list[Result]:
    """Evaluate a server on the benchmarks of a plan; see `run_plan`."""
    settings, console = RunSettings(protocol=plan.protocol, **options), Console()
    results: list[Result] = []
    name = client.model.replace("/", "--")
    for source in plan.benchmarks:
        run = served_run(client, name, source.benchmark, source.read(), settings)
        path = plan.path(name, source.benchmark)
        _print_prompt(run)
        with progress(visible=True) as on_progress:
            request_predictions(run, path, settings, on_progress=on_progress)
        results += _score(run, path, plan.protocol, console)
    _compare(plan, results, settings, console)
    return results


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The agreement of two backends on one benchmark."""

    benchmark: str  # Title of the benchmark
    n: int  # Number of samples
    equal_responses: int  # Number of samples with equal responses
    equal_scores: int  # Number of samples with equal scores
    results: tuple[Result, Result]  # Results of both backends
    # (sample id, response, response) of the first sample with different responses; `None` if all
    # responses are equal
    difference: tuple[str, str, str] | None


def compare_backends(
    checkpoint: str, client: ChatClient, plan: EvalPlan, *, dtype: str, **options: Any
) -> list[Parity]:
    """Compare a checkpoint in this process with a server of the same model."""
    device = processes().device
    loaded = load_checkpoint(find_checkpoint(checkpoint), dtype=dtype, device=device)
    prompt = options.pop("prompt", None) or plan.protocol.prompt_of(loaded.family.name)
    settings = RunSettings(protocol=plan.protocol, prompt=prompt, **options)
    comparisons = []
    for source in plan.benchmarks:
        benchmark, data = source.benchmark, source.read()
        here = checkpoint_run(loaded, benchmark, data, settings)
        there = served_run(client, "served", benchmark, data, settings)
        paths = [plan.path(name, benchmark) for name in ("here", "served")]
        generate_predictions(here, paths[0], settings)
        request_predictions(there, paths[1], settings)
        first, second = (
            score_predictions(run, path, plan.protocol)
            for run, path in zip((here, there), paths, strict=True)
        )
        comparisons.append(_parity(benchmark.title, paths, (first, second)))
    return comparisons


def _parity(title: str, paths: Sequence[Path], results: tuple[Result, Result]) -> Parity:
    left, right = (
        {key: prediction.response for key, prediction in read_predictions(path).by_id.items()}
        for path in paths
    )
    different = [key for key in left if left[key] != right[key]]
    pairs = zip(*(result.per_sample for result in results), strict=True)
    key = different[0] if different else None
    return Parity(
        benchmark=title,
        n=len(left),
        equal_responses=len(left) - len(different),
        equal_scores=sum(a.score == b.score for a, b in pairs),
        results=results,
        difference=None if key is None else (key, left[key], right[key]),
    )


def _score(run: EvalRun, path: Path, protocol: Protocol, console: Console) -> list[Result]:
    """Score a file of predictions, or print the command to use if a judge scores the benchmark."""
    benchmark = run.benchmark
    if benchmark.bridge is not None:
        command = f"unidpo-mm eval export {benchmark.bridge} --data {run.data.path}"
        text = f"{benchmark.title} is judged by its own command: {command} --predictions {path}"
        console.print(escape(f"{text} --output ..."), soft_wrap=True)
        return []
    if benchmark.scorer(protocol.scoring).uses_judge:
        command = f"unidpo-mm eval score --judge ... --predictions {path}"
        text = f"{benchmark.title} needs a judge: {command}"
        console.print(escape(text), soft_wrap=True)
        return []
    result = score_predictions(run, path, protocol)
    print_result(result, console)
    return [result]


def _print_prompt(run: EvalRun, *, quiet: bool = False) -> None:
    console, manifest = Console(stderr=True, quiet=quiet), run.manifest
    prompt = manifest["first_prompt"].get("text", "no sample has a valid prompt")
    how = f"{manifest['prompt']}, {manifest['style']}, {manifest['dtype']}"
    title = escape(f"{manifest['model']}, {run.benchmark.name}")
    console.print(f"[bold]{title}[/bold] ({how}); its first prompt:")
    console.print(escape(prompt), style="dim", soft_wrap=True)
    for warning in variables_warning(manifest):
        console.print(f"[yellow]{escape(warning)}[/yellow]", soft_wrap=True)


def _compare(
    plan: EvalPlan, results: Sequence[Result], settings: RunSettings, console: Console
) -> None:
    """Print and write the table of all results, and a page per benchmark."""
    if len(results) < 2:
        return
    suite = plan.suite
    if suite is not None and plan.protocol.id != suite.protocol:
        suite = replace(suite, protocol=plan.protocol.id)
    summary = summarize(results, suite)
    print_summary(summary, console)
    (plan.output / "report.md").write_text(summary_markdown(summary), encoding="utf-8")
    by_benchmark: Mapping[str, list[Result]] = {
        source.benchmark.name: [r for r in results if r.benchmark == source.benchmark.name]
        for source in plan.benchmarks
    }
    for source in plan.benchmarks:
        name = source.benchmark.name
        if len(by_benchmark[name]) > 1:
            comparison = compare(by_benchmark[name])
            data = None if settings.shuffle_images is not None else source.path
            page = comparison_page(comparison, [comparison.first.headline], data=data)
            (plan.output / f"{name}.html").write_text(page, encoding="utf-8")
    console.print(f"Wrote {plan.output / 'report.md'} and one page per benchmark next to it")

"""What `eval run` does, from the words of a command line to tables."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from rich.console import Console
from rich.markup import escape

from ..models.chat import ChatClient
from ..models.checkpoint import Checkpoint, load_checkpoint
from ..models.processes import processes
from ..models.template_variables import different_variables
from ..protocols import Protocol
from ..report.page import comparison_page
from ..report.summary_tables import summary_markdown
from ..report.text import print_result, print_summary
from ..results.result import Result
from ..results.summary import summarise
from .eval_run import Asking, Settings, answer_benchmark, asking, check_batches, score_run
from .plan import Plan
from .progress import progress

__all__ = ["run_endpoint", "run_plan"]


def run_plan(
    plan: Plan, *, dtype: str, check: int, console: Console | None = None, **options: Any
) -> list[Result]:
    """Runs a plan and prints what comes of it.

    Args:
        plan: What to do.
        dtype: Number format of the weights.
        check: Questions that are asked again, alone.
        console: Where results are printed; None for the terminal.
        options: Of `Settings`.
    """
    state = processes()
    settings = Settings(protocol=plan.protocol, **options)
    console = console or Console()
    results: list[Result] = []
    for checkpoint in plan.checkpoints:
        results += _run_one(plan, checkpoint, settings, console, dtype=dtype, check=check)
        release_memory()  # of the last one, before the next is loaded
    if state.is_main_process:
        _compare(plan, results, settings, console)
    return results


def _run_one(
    plan: Plan,
    checkpoint: Checkpoint,
    settings: Settings,
    console: Console,
    *,
    dtype: str,
    check: int,
) -> list[Result]:
    """Lets one checkpoint answer all benchmarks; returns the results on the first process."""
    state = processes()
    loaded = load_checkpoint(checkpoint, dtype=dtype, device=state.device)
    results: list[Result] = []
    for subject in plan.benchmarks:
        benchmark = subject.benchmark
        asked = asking(loaded, benchmark, subject.read(), settings)
        path = plan.path(checkpoint.name, benchmark)
        if state.is_main_process:
            _show_first(asked.manifest, checkpoint.name, benchmark.name, quiet=console.quiet)
        with progress(shown=state.is_main_process and not console.quiet) as told:
            answer_benchmark(asked, path, settings, told)
        if state.is_main_process:
            results += _scored(asked, path, plan.protocol, console)
            if check:
                count, other = check_batches(asked, path, check)
                console.print(_checked(count, other), soft_wrap=True)
    return results


def run_endpoint(plan: Plan, client: ChatClient, **options: Any) -> list[Result]:
    """Lets a served model answer the benchmarks of a plan; see `run_plan`.

    Args:
        plan: What to do; it has no checkpoint.
        client: The server.
        options: Of `Settings`.
    """
    from .served import answer_by_endpoint, asking_endpoint

    settings, console = Settings(protocol=plan.protocol, **options), Console()
    results: list[Result] = []
    name = client.model.replace("/", "--")
    for subject in plan.benchmarks:
        benchmark = subject.benchmark
        asked = asking_endpoint(client, name, benchmark, subject.read(), settings)
        path = plan.path(name, benchmark)
        _show_first(asked.manifest, name, benchmark.name)
        with progress(shown=True) as told:
            answer_by_endpoint(asked, path, settings, told=told)
        results += _scored(asked, path, plan.protocol, console)
    _compare(plan, results, settings, console)
    return results


def _scored(asked: Asking, path: Path, protocol: Protocol, console: Console) -> list[Result]:
    """Scores a file of predictions, or says how that is done where a judge is needed."""
    if asked.benchmark.bridge is not None:
        export = f"unidpo-mm eval export {asked.benchmark.bridge} --data {asked.data.path}"
        console.print(f"for its own judge: {export} --predictions {path} --out ...", soft_wrap=True)
        return []
    if asked.benchmark.rules(protocol.scoring).by_judge:
        text = f"{asked.benchmark.title} needs a judge: unidpo-mm eval score --judge ... on {path}"
        console.print(escape(text), soft_wrap=True)
        return []
    result = score_run(asked, path, protocol)
    print_result(result, console)
    return [result]


def _show_first(
    manifest: Mapping[str, Any], model: str, benchmark: str, *, quiet: bool = False
) -> None:
    console = Console(stderr=True, quiet=quiet)
    prompt = manifest["first_prompt"].get("text", "no question can be asked")
    how = f"{manifest['prompt']}, {manifest['style']}, {manifest['dtype']}"
    console.print(f"[bold]{escape(model)}, {benchmark}[/bold] ({how}); its first prompt:")
    console.print(escape(prompt), style="dim", soft_wrap=True)
    if (other := different_variables(manifest)) is not None:
        console.print(f"[yellow]{escape(other)}[/yellow]", soft_wrap=True)


def _checked(count: int, other: Sequence[str]) -> str:
    if not other:
        return f"asked alone: all of {count} answers are the same"
    return (
        f"[yellow]asked alone: {len(other)} of {count} answers differ, as of '{other[0]}'[/yellow]"
    )


def _compare(plan: Plan, results: Sequence[Result], settings: Settings, console: Console) -> None:
    """Prints and writes the table of all results, and a page for each benchmark."""
    from ..results.comparison import compare

    if len(results) < 2:
        return
    suite = plan.suite
    if suite is not None and plan.protocol.id != suite.protocol:
        suite = replace(suite, protocol=plan.protocol.id)
    summary = summarise(results, suite)
    print_summary(summary, console)
    (plan.out / "report.md").write_text(summary_markdown(summary), encoding="utf-8")
    for subject in plan.benchmarks:
        benchmark = subject.benchmark
        same = [one for one in results if one.benchmark == benchmark.name]
        if len(same) > 1:
            found = compare(same)
            shown = None if settings.shuffle_pictures is not None else subject.path
            page = comparison_page(found, [found.first.headline], data=shown)
            (plan.out / f"{benchmark.name}.html").write_text(page, encoding="utf-8")
    console.print(f"Written: {plan.out / 'report.md'}, one page for each benchmark beside it")

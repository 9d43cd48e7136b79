"""What `eval run` does, from the words of a command line to tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from rich.console import Console
from rich.markup import escape

from unidpo_mm.errors import DataError, Problem, RecipeError

from ..benchmark import Benchmark, load_benchmark
from ..data_check import place
from ..judge.client import ChatClient
from ..protocols import Protocol, load_protocol
from ..reading.data_set import DataSet
from ..reading.subset import subset as part_of
from ..report.page import comparison_page
from ..report.summary_tables import summary_markdown
from ..report.text import print_result, print_summary
from ..results import Result
from ..suites import Suite, load_suite
from ..summary import summarise
from .checkpoint import Checkpoint, find_checkpoint, load_checkpoint, named
from .progress import progress
from .run import Asking, Settings, answer_benchmark, asking, check_batches, score_run

__all__ = ["Plan", "run_endpoint", "run_plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which checkpoints answer which benchmarks.

    Attributes:
        checkpoints: In order; the others are compared with the first.
        benchmarks: Each with its data.
        protocol: Prompts and rules of all.
        suite: What the benchmarks are, where they are a suite.
        data, out: Where data are and results go.
    """

    checkpoints: Sequence[Checkpoint]
    benchmarks: Sequence[tuple[Benchmark, DataSet]]
    protocol: Protocol
    suite: Suite | None
    data: Path
    out: Path

    def path(self, name: str, benchmark: Benchmark) -> Path:
        """Returns the file of a model's predictions on a benchmark."""
        return self.out / name / f"{benchmark.name}.jsonl"

    @classmethod
    def of(
        cls,
        checkpoints: Sequence[str],
        *,
        data: Path,
        out: Path,
        benchmarks: Sequence[str],
        suite: str | None,
        protocol: str | None,
        names: Sequence[str],
        subset: int | None,
    ) -> "Plan":
        """Returns a plan of the words of a command line; everything is looked for at once.

        Raises:
            RecipeError: If options contradict each other.
            DataError: If data are not there or cannot be read; with all that is wrong of all.
        """
        if bool(benchmarks) == (suite is not None):
            found = "it has to know what to ask"
            raise RecipeError(Problem("eval run", found, "Name --benchmark or --suite"))
        if names and len(names) != len(checkpoints):
            found = f"there are {len(names)} for {len(checkpoints)} checkpoints"
            raise RecipeError(Problem("--name", found, "Give one for each, in order"))
        whole = None if suite is None else load_suite(suite)
        wanted = [load_benchmark(name) for name in (whole.benchmarks if whole else benchmarks)]
        usual = whole.protocol if whole else next(iter(wanted[0].families))
        rules = load_protocol(protocol or usual)
        clusters = subset if subset is not None or whole is None else whole.subset
        problems: list[Problem] = []
        found_data = []
        for one in wanted:
            one.rules(rules.scoring)
            try:
                read = _data(one, data)
                found_data.append((one, part_of(read, clusters) if clusters else read))
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        given: Sequence[str | None] = names or [None] * len(checkpoints)
        known = [find_checkpoint(path, own) for path, own in zip(checkpoints, given, strict=True)]
        return cls(
            checkpoints=named(known),
            benchmarks=found_data,
            protocol=rules,
            suite=whole,
            data=data,
            out=out,
        )


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
    state = PartialState()
    settings = Settings(protocol=plan.protocol, **options)
    console = console or Console()
    results: list[Result] = []
    for checkpoint in plan.checkpoints:
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=state.device)
        for benchmark, data in plan.benchmarks:
            asked = asking(loaded, benchmark, data, settings)
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
        del loaded
    if state.is_main_process:
        _compare(plan, results, settings, console)
    return results


def run_endpoint(plan: Plan, client: ChatClient, **options: Any) -> list[Result]:
    """Lets a served model answer the benchmarks of a plan; see `run_plan`.

    Args:
        plan: What to do; it has no checkpoint.
        client: The server.
        options: Of `Settings`.
    """
    from .endpoint import answer_by_endpoint, asking_endpoint

    settings, console = Settings(protocol=plan.protocol, **options), Console()
    results: list[Result] = []
    name = client.model.replace("/", "--")
    for benchmark, data in plan.benchmarks:
        asked = asking_endpoint(client, name, benchmark, data, settings)
        path = plan.path(name, benchmark)
        _show_first(asked.manifest, name, benchmark.name)
        with progress(shown=True) as told:
            answer_by_endpoint(asked, path, settings, told=told)
        results += _scored(asked, path, plan.protocol, console)
    return results


def _scored(asked: Asking, path: Path, protocol: Protocol, console: Console) -> list[Result]:
    """Scores a file of predictions, or says how that is done where a judge is needed."""
    if asked.benchmark.rules(protocol.scoring).by_judge:
        text = f"{asked.benchmark.title} needs a judge: unidpo-mm eval score --judge ... on {path}"
        console.print(escape(text), soft_wrap=True)
        return []
    result = score_run(asked, path, protocol)
    print_result(result, console)
    return [result]


def _data(benchmark: Benchmark, path: Path) -> DataSet:
    """Returns the data of a benchmark: the file named, or its usual file in a folder."""
    found = place(benchmark, path) if path.is_dir() else path
    if found is None or not found.exists():
        if path.is_dir() and any(path.iterdir()):
            try:
                return benchmark.read(path, True)  # a folder that is the benchmark's own
            except DataError:
                pass
        remedy = f"Put it there as {benchmark.files[0]} ({'; '.join(benchmark.layouts)})"
        text = f"there is no file {', '.join(benchmark.files)} of {benchmark.title}"
        raise DataError(Problem(str(path), text, remedy))
    return benchmark.read(found, True)


def _show_first(
    manifest: Mapping[str, Any], model: str, benchmark: str, *, quiet: bool = False
) -> None:
    console = Console(stderr=True, quiet=quiet)
    prompt = manifest["first_prompt"].get("text", "no question can be asked")
    how = f"{manifest['prompt']}, {manifest['style']}, {manifest['dtype']}"
    console.print(f"[bold]{escape(model)}, {benchmark}[/bold] ({how}); its first prompt:")
    console.print(escape(prompt), style="dim", soft_wrap=True)


def _checked(count: int, other: Sequence[str]) -> str:
    if not other:
        return f"asked alone: all of {count} answers are the same"
    return (
        f"[yellow]asked alone: {len(other)} of {count} answers differ, as of '{other[0]}'[/yellow]"
    )


def _compare(plan: Plan, results: Sequence[Result], settings: Settings, console: Console) -> None:
    """Prints and writes the table of all results, and a page for each benchmark."""
    from ..compare import compare

    if len(results) < 2:
        return
    suite = plan.suite
    if suite is not None and plan.protocol.id != suite.protocol:
        suite = replace(suite, protocol=plan.protocol.id)
    summary = summarise(results, suite)
    print_summary(summary, console)
    (plan.out / "report.md").write_text(summary_markdown(summary), encoding="utf-8")
    for benchmark, data in plan.benchmarks:
        same = [one for one in results if one.benchmark == benchmark.name]
        if len(same) > 1:
            found = compare(same)
            shown = None if settings.shuffle_pictures is not None else data.path
            page = comparison_page(found, [found.first.headline], data=shown)
            (plan.out / f"{benchmark.name}.html").write_text(page, encoding="utf-8")
    console.print(f"Written: {plan.out / 'report.md'}, one page for each benchmark beside it")

"""What `eval prefs` does, from the words of a command line to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from rich.console import Console

from unidpo_mm.errors import ModelError, Problem, RecipeError

from ..benchmarks import load_benchmark
from ..models.checkpoint import (
    Checkpoint,
    LoadedCheckpoint,
    find_checkpoint,
    find_checkpoints,
    load_checkpoint,
)
from ..models.processes import processes
from ..report.page import comparison_page
from ..report.text import print_comparison, print_result
from ..results.comparison import Comparison, compare
from ..results.result import Result
from ..run.progress import progress
from .run import score_preferences

__all__ = ["run_preferences", "shown_metrics"]

NONE, LORA_OFF = "none", "lora_off"


def run_preferences(
    checkpoints: Sequence[str],
    *,
    data: Path,
    out: Path,
    benchmark: str,
    images: Path | None,
    reference: str,
    names: Sequence[str],
    dtype: str,
    console: Console | None = None,
    **options: Any,
) -> list[Result]:
    """Scores pairs with every checkpoint and prints what comes of it.

    Args:
        checkpoints: The others are compared with the first.
        data: The file of pairs.
        out: Where results go.
        benchmark: Of which benchmark the file is.
        images: Folder of pictures that it names.
        reference: ``none``, ``lora_off`` or a checkpoint.
        names: What checkpoints are called; empty for their folders' names.
        dtype: Number format of the weights.
        console: Where results are printed; None for the terminal.
        options: Of `score_preferences`.
    """
    kind = load_benchmark(benchmark)
    if kind.pairs is None:
        found = f"{kind.title} has questions and no pairs"
        raise RecipeError(Problem("--benchmark", found, "Use `unidpo-mm eval run`"))
    pairs = kind.pairs(data, images)
    known = find_checkpoints(checkpoints, names)
    _refuse_reference(known, reference)
    state, console = processes(), console or Console()
    other = _reference(reference, dtype, state.device)
    results: list[Result] = []
    for checkpoint in known:
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=state.device)
        with progress(shown=state.is_main_process and not console.quiet) as told:
            result = score_preferences(
                loaded,
                kind,
                pairs,
                out / checkpoint.name / f"{kind.name}.jsonl",
                reference=other,
                against=LORA_OFF if reference == LORA_OFF else NONE,
                told=told,
                **options,
            )
        del loaded
        release_memory()
        if result is not None:
            print_result(result, console)
            results.append(result)
    if len(results) > 1:
        contrast = compare(results)
        shown = shown_metrics(contrast)
        print_comparison(contrast, shown, console)
        page = comparison_page(contrast, shown, data=data if images is None else None)
        (out / f"{kind.name}.html").write_text(page, encoding="utf-8")
        console.print(f"Written: {out / f'{kind.name}.html'}")
    return results


def shown_metrics(found: Comparison) -> list[str]:
    """Returns what a table of pairs shows: the accuracy, also by domain and group, and margins."""
    by = ("accuracy/domain/", "accuracy/group/")
    return [
        name
        for name in found.results[0].intervals
        if name in ("accuracy", "mean_margin", "mean_chosen_logp") or name.startswith(by)
    ]


def _refuse_reference(checkpoints: Sequence[Checkpoint], reference: str) -> None:
    without = [one.name for one in checkpoints if one.lora is None]
    if reference == LORA_OFF and without:
        found = f"{', '.join(without)} has no LoRA to switch off"
        raise ModelError(Problem("--reference", found, "Name a checkpoint, or none"))


def _reference(reference: str, dtype: str, device: Any) -> LoadedCheckpoint | None:
    if reference in (NONE, LORA_OFF):
        return None
    return load_checkpoint(find_checkpoint(reference), dtype=dtype, device=device)

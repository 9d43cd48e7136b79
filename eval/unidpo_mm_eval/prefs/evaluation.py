"""The steps of `eval prefs`: log-probs of pairs become a result like any other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils import release_memory
from rich.console import Console

from unidpo_mm.distributed.processes import processes
from unidpo_mm.errors import ModelError, Problem, RecipeError
from unidpo_mm.inference.checkpoint import (
    LoadedCheckpoint,
    find_checkpoint,
    find_checkpoints,
    load_checkpoint,
)
from unidpo_mm.inference.local_model import prompt_style
from unidpo_mm.inference.progress import ProgressCallback, no_progress, progress
from unidpo_mm.records import Pair, PreferenceRow

from ..benchmarks import Benchmark, load_benchmark
from ..benchmarks._pairs import PAIR_SCORER, PairSet, extra_pair_metrics, pair_ids
from ..data.dataset import file_hash
from ..data.predictions import variables_warning
from ..data.samples import GradedSample
from ..protocols import load_protocol
from ..report.page import comparison_page
from ..report.text import print_comparison, print_result
from ..results.comparison import Comparison, compare
from ..results.grading import rates
from ..results.result import Result, Source, write_result
from ..run.eval_run import PACKAGES
from ..run.store import PredictionStore
from .logps import PairModel, compute_pair_logps

PROTOCOL = "implicit-reward"
NONE, LORA_OFF = "none", "lora_off"
HEADLINES = ("accuracy", "mean_margin", "mean_chosen_logp")


def run_preferences(
    checkpoints: Sequence[str],
    *,
    data: Path,
    output: Path,
    benchmark: str = "preferences",
    images: Path | None = None,
    reference: str = NONE,
    names: Sequence[str] = (),
    dtype: str,
    console: Console | None = None,
    **options: Any,
) -> list[Result]:
    """Evaluate checkpoints on pairs, print the results and compare them with the first.

    Args:
        checkpoints: Directories of models, LoRA adapters or runs, or hub names.
        data: File of preference pairs.
        output: Directory for log-probs and results.
        benchmark: Name of a benchmark of pairs; ``preferences`` reads the formats of training data.
        images: Directory of image files; `None` for the directory of the data.
        reference: ``none`` ranks by the log-prob per token, ``lora_off`` or a checkpoint by the
            implicit reward.
        names: One name per checkpoint; empty for the names of their directories.
        dtype: Number format of the weights, or ``auto`` for the saved format.
        console: Where to print; `None` for standard output.
        options: Further options, such as `batch_size` or `overwrite`.

    Returns:
        A result per checkpoint.
    """
    kind = load_benchmark(benchmark)
    pairs = read_pairs(kind, data, images)
    candidates = find_checkpoints(checkpoints, names)
    without = [checkpoint.name for checkpoint in candidates if checkpoint.lora is None]
    if reference == LORA_OFF and without:
        text = f"{', '.join(without)} has no LoRA adapter to disable"
        raise ModelError(Problem("--reference", text, "Use a checkpoint, or none"))
    state, console = processes(), console or Console()
    baseline: LoadedCheckpoint | str | None = LORA_OFF if reference == LORA_OFF else None
    if reference not in (NONE, LORA_OFF):
        baseline = load_checkpoint(find_checkpoint(reference), dtype=dtype, device=state.device)
    results: list[Result] = []
    for checkpoint in candidates:
        path = output / checkpoint.name / f"{kind.name}.jsonl"
        loaded = load_checkpoint(checkpoint, dtype=dtype, device=state.device)
        with progress(visible=state.is_main_process and not console.quiet) as on_progress:
            result = evaluate_pairs(
                loaded, kind, pairs, path, reference=baseline, on_progress=on_progress, **options
            )
        del loaded
        release_memory()
        if result is not None:
            print_result(result, console)
            results.append(result)
    if len(results) > 1:
        comparison = compare(results)
        metrics = pair_table_metrics(comparison)
        print_comparison(comparison, metrics, console)
        page = comparison_page(comparison, metrics, data=data if images is None else None)
        (output / f"{kind.name}.html").write_text(page, encoding="utf-8")
        console.print(f"Wrote {output / f'{kind.name}.html'}")
    return results


def read_pairs(benchmark: Benchmark, data: Path, images: Path | None = None) -> PairSet:
    """Read the pairs of a benchmark; `images` is the directory of its image files.

    Raises:
        RecipeError: If the benchmark consists of questions.
    """
    if benchmark.pairs is None:
        text = f"{benchmark.title} consists of questions, not of pairs"
        raise RecipeError(Problem("--benchmark", text, "Use `unidpo-mm eval run`"))
    pairs: PairSet = benchmark.pairs(data, images)
    return pairs


def pair_table_metrics(comparison: Comparison) -> list[str]:
    """Return the metrics in a table of pairs: accuracies by domain and group, and margins."""
    groups = ("accuracy/domain/", "accuracy/group/")
    names = comparison.results[0].intervals
    return [name for name in names if name in HEADLINES or name.startswith(groups)]


def evaluate_pairs(
    loaded: LoadedCheckpoint,
    benchmark: Benchmark,
    pairs: PairSet,
    path: Path,
    *,
    reference: LoadedCheckpoint | str | None = None,
    beta: float = 0.1,
    batch_size: int = 8,
    style: str = "auto",
    chat_template_kwargs: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    on_progress: ProgressCallback = no_progress,
) -> Result | None:
    """Compute log-probs of pairs, and write them (.jsonl) and the result (.json).

    `reference` and `beta` affect margins; without a reference accuracies do not depend on them.
    """
    state, variables, total = processes(), dict(chat_template_kwargs or {}), len(pairs.rows)
    rendered = prompt_style(loaded.processor, style)
    model = PairModel.build(
        loaded, style=rendered, reference=reference, variables=variables, rows=pairs.rows
    )
    baseline = reference or NONE
    if isinstance(baseline, LoadedCheckpoint):
        baseline = baseline.checkpoint.weights
    manifest = {
        **loaded.manifest(variables),
        "style": rendered,
        "reference": baseline,
        "benchmark": benchmark.name,
        "data_sha256": pairs.sha256,
        "rows": total,
        "versions": {name: version(name) for name in PACKAGES},
        "batch_size": batch_size,
        "layout": model.layout,
        "overrides": {"style": style},
    }
    rank, world_size = state.process_index, state.num_processes
    store = PredictionStore(path, manifest, rank=rank, overwrite=overwrite)

    def work() -> None:
        compute_pair_logps(
            model,
            pairs.rows,
            store,
            batch_size=batch_size,
            rank=rank,
            world_size=world_size,
            on_progress=lambda count: on_progress(benchmark.name, count * world_size, total),
        )

    store.complete([row.id for row in pairs.rows], work)
    if not state.is_main_process:
        return None
    result = pair_result(benchmark, pairs, path, store, beta=beta)
    write_result(result, path.with_suffix(".json"))
    return result


def pair_result(
    benchmark: Benchmark, pairs: PairSet, path: Path, store: PredictionStore, *, beta: float
) -> Result:
    """Build the result from the log-probs of pairs."""
    samples = [
        _graded_pair(row, number, pair, store.done[row.id], pairs, beta)
        for row in pairs.rows
        for number, pair in enumerate(row.pairs)
    ]
    metrics = PAIR_SCORER.measure(samples).values() | extra_pair_metrics(samples) | rates(samples)
    return Result(
        benchmark=benchmark.name,
        title=benchmark.title,
        protocol=load_protocol(PROTOCOL),
        headline=PAIR_SCORER.headline,
        metrics=metrics,
        per_sample=tuple(samples),
        data=Source(str(pairs.path), pairs.sha256, len(samples)),
        predictions=Source(str(path), file_hash([path]), len(store.done)),
        manifest=store.manifest | {"beta": beta},
        warnings=(*pairs.notes, *variables_warning(store.manifest)),
    )


def _graded_pair(
    row: PreferenceRow,
    number: int,
    pair: Pair,
    record: Mapping[str, Any],
    pairs: PairSet,
    beta: float,
) -> GradedSample:
    details = _details(row, pair, record, beta) if "logps" in record else {}
    margin = details.get("margin", 0.0)
    return GradedSample(
        id=pair_ids(row)[number],
        question="\n".join(message.text for message in row.messages),
        answers=(row.responses[pair.chosen].text,),
        labels={"domain": row.domain, **pairs.groups.get(row.id, {})},
        cluster=cluster_of(row),
        unit=pairs.units.get(row.id, row.id),
        response=row.responses[pair.rejected].text,
        score=float(margin > 0),
        answer=f"margin {margin:+.4f}" if details else None,
        error=record.get("error"),
        details=details,
    )


def cluster_of(row: PreferenceRow) -> str:
    """Return a key that is equal for rows with the same media, or else the same prompt."""
    if row.media:
        return " ".join(media.key()[:16] for media in row.media)
    prompt = json.dumps([message.text for message in row.messages])
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _details(
    row: PreferenceRow, pair: Pair, record: Mapping[str, Any], beta: float
) -> dict[str, float]:
    sums, tokens, reference = record["logps"], record["tokens"], record.get("reference")
    details: dict[str, float] = {}
    for name, n in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        details[f"{name}_logp"] = sums[n] / tokens[n]
        details[f"{name}_tokens"] = tokens[n]
        details[f"{name}_reward"] = details[f"{name}_logp"]
        if reference is not None:
            details[f"{name}_reward"] = beta * (sums[n] - reference[n])
    details["margin"] = details["chosen_reward"] - details["rejected_reward"]
    if reference is not None:
        details["fell"] = float(sums[pair.chosen] < reference[pair.chosen])
    chosen, rejected = row.responses[pair.chosen].score, row.responses[pair.rejected].score
    if chosen is not None and rejected is not None:
        details["score_margin"] = chosen - rejected
    return details

"""Compare the model before and after tuning as the commands of `unidpo-mm eval` do.

`eval run` generates captions of unseen images and, as a control, captions for which the images were
shuffled; `eval prefs` evaluates pairs of images, math and text. The files are those that the
commands write, so they can be inspected and compared again.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from unidpo_mm_eval.prefs.evaluation import pair_table_metrics, run_preferences
from unidpo_mm_eval.report.page import comparison_page
from unidpo_mm_eval.report.tables import comparison_json
from unidpo_mm_eval.report.text import print_comparison
from unidpo_mm_eval.results.comparison import Comparison, compare
from unidpo_mm_eval.run.flow import run_plan
from unidpo_mm_eval.run.plan import EvalPlan

from .captions import MAX_NEW_TOKENS

__all__ = ["TuningComparison", "compare_models", "print_tuning_comparison"]

BENCHMARK = "quickstart"
BEFORE, AFTER, CONTROL = "warm-up", "Uni-DPO", "shuffled"
BATCH_SIZE = 50
METRICS = ("accuracy", "hallucination_rate", "object_recall", "exact", "caption_words")


@dataclass(frozen=True, kw_only=True)
class TuningComparison:
    """The results of the model before and after tuning, and of the control.

    Attributes:
        captions: Comparison on unseen images: before, after, and after with shuffled images.
        pairs: Comparison on held-out pairs: before and after.
        commands: Commands that produce the same results.
        page: HTML page with every caption and its image.
    """

    captions: Comparison
    pairs: Comparison
    commands: tuple[str, ...]
    page: Path

    def content(self) -> dict[str, Any]:
        """Return all values, for the summary."""
        comparisons = {"captions": self.captions, "pairs": self.pairs}
        return {name: json.loads(comparison_json(item)) for name, item in comparisons.items()}


def compare_models(
    before: Path, after: Path, data: Path, out: Path, *, seed: int, dtype: str
) -> TuningComparison:
    """Evaluate a model before and after tuning.

    Args:
        before: The warmed-up checkpoint.
        after: The tuned checkpoint.
        data: Directory of the quick-start's data.
        out: Directory for predictions and results.
        seed: Seed of the shuffled images.
        dtype: Number format of the weights.
    """
    quiet = Console(quiet=True)
    images, pairs = data / "test_images.jsonl", data / "heldout_pairs.jsonl"
    results = []
    runs: tuple[tuple[list[Path], list[str], int | None], ...] = (
        ([before, after], [BEFORE, AFTER], None),
        ([after], [CONTROL], seed),
    )
    for checkpoints, names, shuffle_seed in runs:
        plan = EvalPlan.build(
            list(map(str, checkpoints)),
            data=images,
            output=out,
            benchmarks=[BENCHMARK],
            protocol="official",
            names=names,
        )
        results += run_plan(
            plan,
            dtype=dtype,
            console=quiet,
            prompt="plain",
            batch_size=BATCH_SIZE,
            max_new_tokens=MAX_NEW_TOKENS,
            shuffle_images=shuffle_seed,
            overwrite=True,
        )
    captions = compare(results)
    page = out / f"{BENCHMARK}.html"
    page.write_text(comparison_page(captions, METRICS, data=images), encoding="utf-8")
    pair_results = run_preferences(
        [str(before), str(after)],
        data=pairs,
        output=out,
        names=[BEFORE, AFTER],
        dtype=dtype,
        batch_size=BATCH_SIZE,
        overwrite=True,
        console=quiet,
    )
    common = f"--dtype {dtype} --batch-size {BATCH_SIZE} --output {out}"
    options = f"--data {images} -b {BENCHMARK} --protocol official --prompt plain {common}"
    limit = f"--max-new-tokens {MAX_NEW_TOKENS}"
    return TuningComparison(
        captions=captions,
        pairs=compare(pair_results),
        commands=(
            f"unidpo-mm eval run {before} {after} --name {BEFORE} --name {AFTER} {options} {limit}",
            f"unidpo-mm eval run {after} --name {CONTROL} --shuffle-images {seed} "
            f"{options} {limit}",
            f"unidpo-mm eval prefs {before} {after} --name {BEFORE} --name {AFTER} --data {pairs} "
            f"{common}",
        ),
        page=page,
    )


def print_tuning_comparison(comparison: TuningComparison, console: Console) -> None:
    """Print both comparisons, and the commands that produce them."""
    print_comparison(comparison.captions, METRICS, console)
    console.print()
    print_comparison(comparison.pairs, pair_table_metrics(comparison.pairs), console)
    console.print("\nCommands that produce these results:")
    for command in comparison.commands:
        console.print(f"  {command}", soft_wrap=True, style="dim")
    console.print(f"Every caption with its image: {comparison.page}", soft_wrap=True)

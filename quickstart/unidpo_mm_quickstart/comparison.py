"""The quick-start's last stage: the model before and after tuning, by the commands of `eval`.

Captions of unseen images by `eval run`, once with their own images and once, as the control,
with those of others; pairs of images, math and text by `eval prefs`. Everything is written as the
commands write it, so that any of it can be looked at again.
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

__all__ = ["Compared", "compare_models", "print_compared"]

BENCHMARK = "quickstart"
BEFORE, AFTER, CONTROL = "warm-up", "Uni-DPO", "shuffled"
TOGETHER = 50
"""Questions, or rows, at once."""
SHOWN = ("accuracy", "hallucination_rate", "object_recall", "exact", "caption_words")


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The model before and after, and the control.

    Attributes:
        captions: Of unseen images: before, after, and after with the images of others.
        pairs: Held-out pairs: before and after.
        commands: What gives the same by hand.
        page: Every caption with its image.
    """

    captions: Comparison
    pairs: Comparison
    commands: tuple[str, ...]
    page: Path

    def content(self) -> dict[str, Any]:
        """Return every number, for the summary."""
        both = {"captions": self.captions, "pairs": self.pairs}
        return {name: json.loads(comparison_json(found)) for name, found in both.items()}


def compare_models(
    before: Path, after: Path, data: Path, out: Path, *, seed: int, dtype: str
) -> Compared:
    """Return how a model does before and after tuning.

    Args:
        before: The warmed-up checkpoint.
        after: The tuned one.
        data: Folder of the demo's data.
        out: Where predictions and results go.
        seed: Draws the images of the control.
        dtype: Number format of the weights.
    """
    quiet = Console(quiet=True)
    images, pairs = data / "test_images.jsonl", data / "heldout_pairs.jsonl"
    results = []
    asked: tuple[tuple[list[Path], list[str], int | None], ...] = (
        ([before, after], [BEFORE, AFTER], None),
        ([after], [CONTROL], seed),
    )
    for checkpoints, names, shuffled in asked:
        plan = EvalPlan.build(
            [str(one) for one in checkpoints],
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
            batch_size=TOGETHER,
            max_new_tokens=MAX_NEW_TOKENS,
            shuffle_images=shuffled,
            overwrite=True,
        )
    captions = compare(results)
    page = out / f"{BENCHMARK}.html"
    page.write_text(comparison_page(captions, SHOWN, data=images), encoding="utf-8")
    preferred = run_preferences(
        [str(before), str(after)],
        data=pairs,
        output=out,
        names=[BEFORE, AFTER],
        dtype=dtype,
        batch_size=TOGETHER,
        overwrite=True,
        console=quiet,
    )
    how = f"--dtype {dtype} --batch-size {TOGETHER} --output {out}"
    ask = f"--data {images} -b {BENCHMARK} --protocol official --prompt plain {how}"
    limit = f"--max-new-tokens {MAX_NEW_TOKENS}"
    return Compared(
        captions=captions,
        pairs=compare(preferred),
        commands=(
            f"unidpo-mm eval run {before} {after} --name {BEFORE} --name {AFTER} {ask} {limit}",
            f"unidpo-mm eval run {after} --name {CONTROL} --shuffle-images {seed} {ask} {limit}",
            f"unidpo-mm eval prefs {before} {after} --name {BEFORE} --name {AFTER} --data {pairs} "
            f"{how}",
        ),
        page=page,
    )


def print_compared(found: Compared, console: Console) -> None:
    """Print both comparisons, and the commands that give them."""
    print_comparison(found.captions, SHOWN, console)
    console.print()
    print_comparison(found.pairs, pair_table_metrics(found.pairs), console)
    console.print("\nThe same by hand:")
    for command in found.commands:
        console.print(f"  {command}", soft_wrap=True, style="dim")
    console.print(f"Every caption with its image: {found.page}", soft_wrap=True)

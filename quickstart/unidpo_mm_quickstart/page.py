"""The result of the quick-start as one self-contained HTML page."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from unidpo_mm_eval.prefs.evaluation import pair_table_metrics
from unidpo_mm_eval.report import tables
from unidpo_mm_eval.report.page import render

from .charts import training_charts, weight_charts
from .summary import CONTROL_MEANING, PROBLEM, REMEDY, Summary, next_steps
from .training_rows import DemoData

__all__ = ["write_page"]

TEMPLATE = Path(__file__).with_name("report.html.jinja")
GALLERY_SIZE = 12
CAPTION_METRICS = ("hallucination_rate", "exact", "accuracy", "object_recall", "caption_words")


def write_page(
    summary: Summary, data: DemoData, history: Sequence[Mapping[str, float]], path: Path
) -> None:
    """Write the page.

    Args:
        summary: The results.
        data: The data of the quick-start.
        history: Log history of the preference stage.
        path: The file.
    """
    before, after, _ = (measured.result.per_sample for measured in summary.captions.results)
    samples = zip(before, after, strict=True)
    by_id = {sample.id: (sample.response, tuned.response) for sample, tuned in samples}
    # The first images, not a selection of good ones
    gallery = [
        {
            "image": base64.b64encode(canvas.file.read_bytes()).decode("ascii"),
            "truth": canvas.caption,
            "responses": by_id[canvas.id],
        }
        for canvas in data.test[:GALLERY_SIZE]
    ]
    sections = {
        "Captions of unseen images": (summary.captions, CAPTION_METRICS),
        "Held-out pairs": (summary.pairs, pair_table_metrics(summary.pairs)),
    }
    page = render(
        TEMPLATE,
        problem=PROBLEM,
        remedy=REMEDY,
        control_meaning=CONTROL_MEANING,
        numbers=list(summary.numbers()),
        gallery=gallery,
        total=len(data.test),
        training=training_charts(history),
        weights=weight_charts(history),
        columns=tables.COLUMNS,
        comparisons=[
            (
                title,
                tables.comparison_rows(comparison, metrics),
                tables.comparison_notes(comparison),
            )
            for title, (comparison, metrics) in sections.items()
        ],
        commands=summary.commands,
        steps=next_steps(summary),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")

"""A comparison as rows: in the terminal, as Markdown and as CSV, all of the same cells."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..models.template_variables import VARIABLES
from ..results.comparison import Comparison, Contrast, Measured
from ..stats.intervals import Interval

__all__ = [
    "as_csv",
    "as_json",
    "as_markdown",
    "comparison_rows",
    "finite",
    "markdown_row",
    "notes",
]

COLUMNS = ("metric", "result", "value", "interval", "difference", "interval of it")


def comparison_rows(found: Comparison, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns a row for each metric and result."""
    rows: list[tuple[str, ...]] = []
    for metric in metrics:
        for number, (name, one) in enumerate(zip(found.names, found.results, strict=True)):
            if metric not in one.result.metrics:
                continue
            contrast = found.contrasts[number - 1] if number else None
            rows.append(
                (
                    metric,
                    name,
                    f"{one.result.metrics[metric]:.2f}",
                    _interval(one.intervals.get(metric)),
                    _difference(contrast, metric),
                    _interval(contrast.intervals.get(metric) if contrast else None, signed=True),
                )
            )
    return rows


def notes(found: Comparison) -> list[str]:
    """Returns a sentence on each test, and the rates that every table has to show."""
    first = found.names[0]
    told = []
    for contrast in found.contrasts:
        test = contrast.paired
        told.append(
            f"{contrast.name} against {first}: {test.only_second} of {test.n} better, "
            f"{test.only_first} worse; {test.test} p = {test.p:.4f}, "
            f"{contrast.p_corrected:.4f} corrected for {len(found.contrasts)}; smallest difference "
            f"of the mean score that would show: {_points(test.detectable)}"
        )
    for name, one in zip(found.names, found.results, strict=True):
        metrics = one.result.metrics
        rates = ("unparsed", "empty", "error")
        shares = ", ".join(f"{rate} {metrics[f'{rate}_rate']:.1f} %" for rate in rates)
        shares += f", truncated {_truncated(one)}"
        if "judge_error_rate" in metrics:
            shares += f", not judged {metrics['judge_error_rate']:.1f} %"
        if "expected_format_rate" in metrics:
            shares += f", in the expected format {metrics['expected_format_rate']:.1f} %"
        counts = f"n = {metrics['n']:.0f} in {metrics['n_clusters']:.0f} clusters"
        told.append(f"{name}: {counts}, missing {metrics['missing']:.0f}, {shares}")
    used = [json.dumps(one.result.manifest.get(VARIABLES) or {}) for one in found.results]
    if len(set(used)) > 1:
        texts = (f"{name} {text}" for name, text in zip(found.names, used, strict=True))
        told.append(f"asked with different {VARIABLES}: {', '.join(texts)}")
    return told


def as_markdown(found: Comparison, metrics: Sequence[str]) -> str:
    """Returns the table and its notes as Markdown."""
    head = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    rows = [markdown_row(row) for row in comparison_rows(found, metrics)]
    told = [f"- {note}" for note in notes(found)]
    title = f"## {found.first.title}, {found.first.protocol.label}"
    return "\n".join([title, "", *head, *rows, "", *told, ""])


def markdown_row(cells: Sequence[str]) -> str:
    """Returns a row of a Markdown table, bars in its cells escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def as_csv(found: Comparison, metrics: Sequence[str]) -> str:
    """Returns the table as CSV, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        "benchmark protocol metric result value low high difference diff_low diff_high".split()
    )
    for metric in metrics:
        for number, (name, one) in enumerate(zip(found.names, found.results, strict=True)):
            if metric not in one.result.metrics:
                continue
            own = one.intervals.get(metric)
            contrast = found.contrasts[number - 1] if number else None
            gap = contrast.intervals.get(metric) if contrast else None
            difference = contrast.differences.get(metric, "") if contrast else ""
            writer.writerow(
                [
                    *(found.first.benchmark, found.first.protocol.label, metric, name),
                    *(one.result.metrics[metric], *_ends(own), difference, *_ends(gap)),
                ]
            )
    return text.getvalue()


def as_json(found: Comparison) -> str:
    """Returns every number of the comparison, unrounded."""
    results = [
        {
            "name": name,
            "metrics": dict(one.result.metrics),
            "intervals": {metric: asdict(own) for metric, own in one.intervals.items()},
            "warnings": list(one.result.warnings),
        }
        for name, one in zip(found.names, found.results, strict=True)
    ]
    content = {
        "benchmark": found.first.benchmark,
        "protocol": found.first.protocol.label,
        "headline": found.first.headline,
        "data_sha256": found.first.data.sha256,
        "results": results,
        "against": found.names[0],
        "contrasts": [asdict(contrast) for contrast in found.contrasts],
    }
    return json.dumps(finite(content), ensure_ascii=False, indent=1) + "\n"


def finite(value: Any) -> Any:
    """Returns a value as JSON has it: numbers that are none become null."""
    if isinstance(value, Mapping):
        return {name: finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _points(value: float) -> str:
    return f"{value:.2f} points" if math.isfinite(value) else "not to be told from these scores"


def _truncated(one: Measured) -> str:
    known = any(sample.truncated is not None for sample in one.result.per_sample)
    return f"{one.result.metrics['truncated_rate']:.1f} %" if known else "unknown"


def _ends(interval: Interval | None) -> tuple[float | str, float | str]:
    return ("", "") if interval is None else (interval.low, interval.high)


def _interval(interval: Interval | None, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if interval is not None and interval.low == interval.high:
        return "all draws alike"
    return "" if interval is None else f"{interval.low:{sign}.2f} to {interval.high:{sign}.2f}"


def _difference(contrast: Contrast | None, metric: str) -> str:
    if contrast is None or metric not in contrast.differences:
        return ""
    return f"{contrast.differences[metric]:+.2f}"

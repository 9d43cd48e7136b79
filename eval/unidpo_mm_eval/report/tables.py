"""Comparisons and summaries as rows of text, shared by terminal, Markdown, CSV, JSON and HTML."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from unidpo_mm.inference.template_variables import VARIABLES

from ..results.comparison import Comparison, Contrast, ResultWithIntervals
from ..results.summary import Cell, Column, Summary
from ..stats.intervals import Interval

COLUMNS = ("metric", "result", "value", "interval", "difference", "interval of difference")
SIGNIFICANT = 0.05
"""Corrected p-value below which a difference gets a star."""


# ---- comparisons ----


def _entries(
    comparison: Comparison, metrics: Sequence[str]
) -> Iterator[tuple[str, str, ResultWithIntervals, Contrast | None]]:
    """Yield metric, name, result and contrast for each row of a comparison."""
    contrasts = (None, *comparison.contrasts)
    rows = list(zip(comparison.names, comparison.results, contrasts, strict=True))
    for metric in metrics:
        for name, measured, contrast in rows:
            if metric in measured.result.metrics:
                yield metric, name, measured, contrast


def comparison_rows(comparison: Comparison, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row per metric and result."""
    return [
        (
            metric,
            name,
            f"{measured.result.metrics[metric]:.2f}",
            _interval(measured.intervals.get(metric)),
            f"{contrast.differences[metric]:+.2f}"
            if contrast and metric in contrast.differences
            else "",
            _interval(contrast.intervals.get(metric) if contrast else None, sign="+"),
        )
        for metric, name, measured, contrast in _entries(comparison, metrics)
    ]


def comparison_notes(comparison: Comparison) -> list[str]:
    """Return a sentence on each test, and on the rates of each result."""
    notes = []
    for contrast in comparison.contrasts:
        test = contrast.paired
        detectable = "unknown for these scores"
        if math.isfinite(test.detectable):
            detectable = f"{test.detectable:.2f} points"
        notes.append(
            f"{contrast.name} against {comparison.names[0]}: {test.only_second} of {test.n} "
            f"better, {test.only_first} worse; {test.test} p = {test.p:.4f}, "
            f"{contrast.p_corrected:.4f} corrected for {len(comparison.contrasts)}; smallest "
            f"detectable difference of the mean score: {detectable}"
        )
    for name, measured in zip(comparison.names, comparison.results, strict=True):
        metrics = measured.result.metrics
        rates = [
            f"{rate} {metrics[f'{rate}_rate']:.1f} %" for rate in ("unparsed", "empty", "error")
        ]
        has_lengths = any(sample.truncated is not None for sample in measured.result.per_sample)
        truncated = f"{metrics['truncated_rate']:.1f} %" if has_lengths else "unknown"
        rates += [f"truncated {truncated}", *_optional_rates(metrics)]
        counts = f"n = {metrics['n']:.0f} in {metrics['n_clusters']:.0f} clusters"
        notes.append(f"{name}: {counts}, missing {metrics['missing']:.0f}, {', '.join(rates)}")
    used = [json.dumps(m.result.manifest.get(VARIABLES) or {}) for m in comparison.results]
    if len(set(used)) > 1:
        texts = (f"{name} {text}" for name, text in zip(comparison.names, used, strict=True))
        notes.append(f"evaluated with different {VARIABLES}: {', '.join(texts)}")
    return notes


def comparison_markdown(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Return the table and its notes as Markdown."""
    title = f"{comparison.first.title}, {comparison.first.protocol.label}"
    rows = comparison_rows(comparison, metrics)
    return _markdown(title, COLUMNS, rows, comparison_notes(comparison), text_columns=2)


def comparison_csv(comparison: Comparison, metrics: Sequence[str]) -> str:
    """Return the table as CSV, unrounded."""
    header = "benchmark protocol metric result value low high difference diff_low diff_high"
    first = comparison.first
    return _csv(
        header,
        (
            [
                *(first.benchmark, first.protocol.label, metric, name),
                *(measured.result.metrics[metric], *_bounds(measured.intervals.get(metric))),
                contrast.differences.get(metric, "") if contrast else "",
                *_bounds(contrast.intervals.get(metric) if contrast else None),
            ]
            for metric, name, measured, contrast in _entries(comparison, metrics)
        ),
    )


def comparison_json(comparison: Comparison) -> str:
    """Return every number of the comparison, unrounded."""
    first = comparison.first
    results = [
        {
            "name": name,
            "metrics": dict(measured.result.metrics),
            "intervals": {key: asdict(interval) for key, interval in measured.intervals.items()},
            "warnings": list(measured.result.warnings),
        }
        for name, measured in zip(comparison.names, comparison.results, strict=True)
    ]
    return _json(
        {
            "benchmark": first.benchmark,
            "protocol": first.protocol.label,
            "headline": first.headline,
            "data_sha256": first.data.sha256,
            "results": results,
            "against": comparison.names[0],
            "contrasts": [asdict(contrast) for contrast in comparison.contrasts],
        }
    )


# ---- summaries ----


def summary_header(summary: Summary) -> list[str]:
    """Return the column headings."""
    several = len({column.protocol for column in summary.columns}) > 1
    names = [
        f"{column.benchmark} {column.headline}" + (f" ({column.protocol})" if several else "")
        for column in summary.columns
    ]
    return ["", *names, *(["average"] if _has_average(summary) else [])]


def summary_rows(summary: Summary) -> list[list[str]]:
    """Return a row per model; significant differences have a star."""
    averages = ["" if row.average is None else f"{row.average:.2f}" for row in summary.rows]
    return [
        [row.name, *(_value(row.cells.get(column)) for column in summary.columns)]
        + ([average] if _has_average(summary) else [])
        for row, average in zip(summary.rows, averages, strict=True)
    ]


def summary_notes(summary: Summary) -> list[str]:
    """Return a sentence per measured number: protocol, n, interval, rates, and the test."""
    return [
        _note(row.name, column, cell, cell.measured)
        for column in summary.columns
        for row in summary.rows
        if (cell := row.cells.get(column)) is not None and cell.measured is not None
    ]


def summary_markdown(summary: Summary) -> str:
    """Return the table with its notes as Markdown."""
    notes = [*summary_notes(summary), *summary.warnings]
    return _markdown(summary.title, summary_header(summary), summary_rows(summary), notes)


def summary_csv(summary: Summary) -> str:
    """Return a line per number, unrounded."""
    header = (
        "benchmark protocol metric result published value low high n unparsed_rate "
        "truncated_rate missing difference p_corrected"
    )
    rates = ("n", "unparsed_rate", "truncated_rate", "missing")
    lines = []
    for column in summary.columns:
        for row in summary.rows:
            if (cell := row.cells.get(column)) is None:
                continue
            measured: list[object] = [""] * 6
            if cell.measured is not None:
                bounds = _bounds(cell.measured.intervals[column.headline])
                measured = [*bounds, *(cell.measured.result.metrics[rate] for rate in rates)]
            difference = cell.contrast.differences[column.headline] if cell.contrast else ""
            p = "" if cell.p_corrected is None else cell.p_corrected
            place = (column.benchmark, column.protocol, column.headline, row.name, row.published)
            lines.append([*place, cell.value, *measured, difference, p])
    return _csv(header, lines)


def summary_json(summary: Summary) -> str:
    """Return every number of the table, unrounded."""
    rows = [
        {
            "name": row.name,
            "published": row.published,
            "average": row.average,
            "cells": [_cell_content(column, cell) for column, cell in row.cells.items()],
        }
        for row in summary.rows
    ]
    columns = [asdict(column) for column in summary.columns]
    content = {"title": summary.title, "columns": columns, "rows": rows}
    return _json(content | {"warnings": list(summary.warnings)})


def _cell_content(column: Column, cell: Cell) -> dict[str, Any]:
    content: dict[str, Any] = {"benchmark": column.benchmark, "protocol": column.protocol}
    content |= {"metric": column.headline, "value": cell.value}
    if cell.measured is not None:
        content["metrics"] = dict(cell.measured.result.metrics)
        content["interval"] = asdict(cell.measured.intervals[column.headline])
    if cell.contrast is not None:
        content["difference"] = cell.contrast.differences[column.headline]
        content["interval_of_difference"] = asdict(cell.contrast.intervals[column.headline])
        content["p"], content["p_corrected"] = cell.contrast.paired.p, cell.p_corrected
    return content


def _has_average(summary: Summary) -> bool:
    return any(row.average is not None for row in summary.rows)


def _value(cell: Cell | None) -> str:
    if cell is None:
        return ""
    star = cell.p_corrected is not None and cell.p_corrected < SIGNIFICANT
    return f"{cell.value:.1f}{'*' if star else ''}"


def _note(name: str, column: Column, cell: Cell, measured: ResultWithIntervals) -> str:
    metrics, interval = measured.result.metrics, measured.intervals[column.headline]
    text = (
        f"{column.benchmark} ({column.protocol}), {name}: {cell.value:.2f} "
        f"[{interval.low:.2f}, {interval.high:.2f}], n = {metrics['n']:.0f}, "
        f"unparsed {metrics['unparsed_rate']:.1f} %, truncated {metrics['truncated_rate']:.1f} %, "
    )
    text += ", ".join([f"missing {metrics['missing']:.0f}", *_optional_rates(metrics)])
    if cell.contrast is not None:
        difference = cell.contrast.differences[column.headline]
        text += f"; {difference:+.2f} against the first, corrected p = {cell.p_corrected:.4f}"
    return text


# ---- shared ----


def _optional_rates(metrics: Mapping[str, float]) -> list[str]:
    names = {"judge_error_rate": "not judged", "expected_format_rate": "in the expected format"}
    return [f"{text} {metrics[name]:.1f} %" for name, text in names.items() if name in metrics]


def _interval(interval: Interval | None, *, sign: str = "") -> str:
    if interval is None:
        return ""
    if interval.low == interval.high:
        return "constant"
    return f"{interval.low:{sign}.2f} to {interval.high:{sign}.2f}"


def _bounds(interval: Interval | None) -> tuple[float | str, float | str]:
    return ("", "") if interval is None else (interval.low, interval.high)


def _markdown(
    title: str,
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str],
    *,
    text_columns: int = 1,
) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    numbers = len(header) - text_columns
    rule = line(["---"] * text_columns + ["---:"] * numbers)
    lines = [f"## {title}", "", line(header), rule, *map(line, rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def _csv(header: str, rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header.split())
    writer.writerows(rows)
    return text.getvalue()


def _json(content: Any) -> str:
    return json.dumps(_finite(content), ensure_ascii=False, indent=1) + "\n"


def _finite(value: Any) -> Any:
    """Replace numbers that JSON cannot represent by null."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

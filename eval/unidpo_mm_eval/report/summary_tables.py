"""A summary as rows of text, for the terminal, Markdown, CSV and the page."""

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from ..results.summary import Cell, Column, Summary
from .tables import finite, markdown_row

__all__ = ["details", "headings", "summary_csv", "summary_json", "summary_markdown", "summary_rows"]

SURE = 0.05
"""Corrected p below which a difference gets a star."""


def headings(found: Summary) -> list[str]:
    """Returns the headings of the columns."""
    average = ["average"] if any(row.average is not None for row in found.rows) else []
    several = len({one.protocol for one in found.columns}) > 1
    names = [
        f"{one.benchmark} {one.headline}" + (f" ({one.protocol})" if several else "")
        for one in found.columns
    ]
    return ["", *names, *average]


def summary_rows(found: Summary) -> list[list[str]]:
    """Returns one row for each checkpoint: values, with a star where they surely differ."""
    wide = len(headings(found)) > len(found.columns) + 1
    rows = []
    for row in found.rows:
        cells = [_shown(row.cells.get(column)) for column in found.columns]
        mean = [] if not wide else ["" if row.average is None else f"{row.average:.2f}"]
        rows.append([row.name, *cells, *mean])
    return rows


def details(found: Summary) -> list[str]:
    """Returns a sentence for every number: protocol, n, interval, rates, and the test."""
    told = []
    for column in found.columns:
        for row in found.rows:
            cell = row.cells.get(column)
            if cell is not None and cell.measured is not None:
                told.append(_detail(row.name, column, cell))
    return told


def summary_markdown(found: Summary) -> str:
    """Returns the table with its details as Markdown."""
    names = headings(found)
    lines = [f"## {found.title}", "", markdown_row(names)]
    lines.append("| --- |" + " ---: |" * (len(names) - 1))
    lines += [markdown_row(row) for row in summary_rows(found)]
    lines += ["", *(f"- {one}" for one in (*details(found), *found.warnings)), ""]
    return "\n".join(lines)


def summary_csv(found: Summary) -> str:
    """Returns one line for every number, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        "benchmark protocol metric result published value low high n unparsed_rate truncated_rate "
        "missing difference p_corrected".split()
    )
    for column in found.columns:
        for row in found.rows:
            cell = row.cells.get(column)
            if cell is None:
                continue
            known: list[object] = [""] * 6
            if cell.measured is not None:
                metrics, own = (
                    cell.measured.result.metrics,
                    cell.measured.intervals[column.headline],
                )
                rates = ("n", "unparsed_rate", "truncated_rate", "missing")
                known = [own.low, own.high, *(metrics[name] for name in rates)]
            difference = cell.contrast.differences[column.headline] if cell.contrast else ""
            p = "" if cell.p_corrected is None else cell.p_corrected
            place = (column.benchmark, column.protocol, column.headline, row.name, row.published)
            writer.writerow([*place, cell.value, *known, difference, p])
    return text.getvalue()


def summary_json(found: Summary) -> str:
    """Returns every number of the table, unrounded."""
    content = {
        "title": found.title,
        "columns": [asdict(column) for column in found.columns],
        "rows": [
            {
                "name": row.name,
                "published": row.published,
                "average": row.average,
                "cells": [_cell(column, row.cells[column]) for column in row.cells],
            }
            for row in found.rows
        ],
        "warnings": list(found.warnings),
    }
    return json.dumps(finite(content), ensure_ascii=False, indent=1) + "\n"


def _cell(column: Column, cell: Cell) -> dict[str, Any]:
    known: dict[str, Any] = {"benchmark": column.benchmark, "protocol": column.protocol}
    known |= {"metric": column.headline, "value": cell.value}
    if cell.measured is not None:
        known["metrics"] = dict(cell.measured.result.metrics)
        known["interval"] = asdict(cell.measured.intervals[column.headline])
    if cell.contrast is not None:
        known["difference"] = cell.contrast.differences[column.headline]
        known["interval_of_difference"] = asdict(cell.contrast.intervals[column.headline])
        known["p"], known["p_corrected"] = cell.contrast.paired.p, cell.p_corrected
    return known


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    sure = cell.p_corrected is not None and cell.p_corrected < SURE
    return f"{cell.value:.1f}{'*' if sure else ''}"


def _detail(name: str, column: Column, cell: Cell) -> str:
    assert cell.measured is not None
    metrics, own = cell.measured.result.metrics, cell.measured.intervals[column.headline]
    text = (
        f"{column.benchmark} ({column.protocol}), {name}: {cell.value:.2f} "
        f"[{own.low:.2f}, {own.high:.2f}], n = {metrics['n']:.0f}, "
        f"unparsed {metrics['unparsed_rate']:.1f} %, truncated {metrics['truncated_rate']:.1f} %, "
        f"missing {metrics['missing']:.0f}"
    )
    if "judge_error_rate" in metrics:
        text += f", not judged {metrics['judge_error_rate']:.1f} %"
    if "expected_format_rate" in metrics:
        text += f", in the expected format {metrics['expected_format_rate']:.1f} %"
    if cell.contrast is not None:
        gap = cell.contrast.differences[column.headline]
        text += f"; {gap:+.2f} against the first, corrected p = {cell.p_corrected:.4f}"
    return text

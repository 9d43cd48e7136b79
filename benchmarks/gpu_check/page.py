"""Write the section about GPUs of docs/performance.md.

    python benchmarks/gpu_check/page.py

It has the measurements in benchmarks/results/gpu/, one CSV file of `gpu_check` per machine. As long
as there is none, it says so, and has an estimate by arithmetic.
"""

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from arithmetic import BOUND_TFLOPS, roofline

__all__ = ["PAGE", "section", "split_page"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "benchmarks" / "results" / "gpu"
BEGIN, END = "<!-- gpu -->\n", "<!-- /gpu -->\n"

ESTIMATE = f"""\
No step has been timed on a GPU yet. The table is **arithmetic, not measured**: it counts the
matrix products of a step and divides them by an assumed {BOUND_TFLOPS:.0f} TFLOP/s, about 70% of
the data sheet of an H100. Everything else is taken as free, so these are upper bounds, which no
trainer reaches. They show how much work is saved with equal settings: 1.1x (long text responses)
to 2.1x (short responses), and 6.9x for six responses. The factors of the tables above are larger
because they include caches and what small models on one CPU thread lose elsewhere; do not expect
them on a GPU.
"""
HEADS = (
    "LoRA, bfloat16, 7B",
    "TFLOP per prompt",
    "pairs/s, shared prompts",
    "the same, cached, no checkpointing",
    "one row per response",
)


def section(paths: Sequence[Path]) -> str:
    """Return the section, from the CSV files of machines."""
    if paths:
        return "\n".join(line for path in paths for line in _measured(path)) + "\n"
    rows = [
        f"| {name} | {tflop:.1f} | {' | '.join(f'{bound:.1f}' for bound in bounds)} |"
        for name, tflop, *bounds in roofline()
    ]
    head = [f"| {' | '.join(HEADS)} |", f"| --- {'| ---: ' * (len(HEADS) - 1)}|"]
    return "\n".join([ESTIMATE, *head, *rows]) + "\n"


def split_page(text: str) -> tuple[str, str, str]:
    """Return the parts of a page before, between and after its markers."""
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside, after


def _measured(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    yield f"Measured on {lines[0]['device']} with {lines[0]['versions'].replace(' ', ', ')}:"
    yield ""
    yield "| | | | |"
    yield "| --- | --- | --- | ---: |"
    yield from (
        f"| {line['case']} | {line['who']} | {line['quantity']} | {_value(line)} |"
        for line in lines
    )


def _value(line: Mapping[str, str]) -> str:
    try:
        number = f"{float(line['value']):.4g}"
    except ValueError:
        return line["value"]
    return f"{number} {line['unit']}".strip()


if __name__ == "__main__":
    start, _, end = split_page(PAGE.read_text(encoding="utf-8"))
    measured = section(sorted(RESULTS.glob("*.csv")))
    PAGE.write_text(start + BEGIN + measured + END + end, encoding="utf-8")

"""Write the tables of docs/performance.md from the CSV output of `make bench`.

python benchmarks/results_page.py benchmarks/results/NAME.csv
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["PAGE", "split_page", "tables"]

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- results -->\n", "<!-- /results -->\n"
REMOVED, SHIPS = "TRL, hooks removed", "TRL, as it ships"
CACHES, KEPT = "ours, caches", "ours, caches, no checkpointing"
EPOCH, EPOCH_KEPT = "ours, caches built during the epoch", "ours, the same, no checkpointing"

Line = Mapping[str, str]
Cases = Mapping[str, Mapping[str, Line]]


def tables(path: Path) -> str:
    """Return the tables of a CSV file as Markdown."""
    cases: dict[str, dict[str, Line]] = defaultdict(dict)
    with path.open(encoding="utf-8") as file:
        for line in csv.DictReader(file):
            cases[line["case"]][line["who"]] = line
    parts = [*_short(cases), "", *_epochs(cases)]
    for case, lines in cases.items():
        parts += ["", f"### {case}", "", *_case(list(lines.values()))]
    return "\n".join(parts) + "\n"


def split_page(text: str) -> tuple[str, str, str]:
    """Return the parts of a page before, between and after its markers."""
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside, after


def _short(cases: Cases) -> Iterator[str]:
    yield "| | hooks removed | memory | as it ships | memory | no checkpointing | memory |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for case, lines in cases.items():
        if CACHES not in lines:
            continue
        cells = [
            *_against(lines, CACHES, REMOVED),
            *_against(lines, CACHES, SHIPS),
            *_against(lines, KEPT, REMOVED if REMOVED in lines else SHIPS),
        ]
        yield f"| {case} | {' | '.join(cells)} |"


def _epochs(cases: Cases) -> Iterator[str]:
    head = "one epoch, caches built during the epoch"
    yield f"| {head} | hooks removed | memory | as it ships | memory |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for case, lines in cases.items():
        for who, name in ((EPOCH, ""), (EPOCH_KEPT, ", no checkpointing")):
            if who in lines:
                cells = [*_against(lines, who, REMOVED), *_against(lines, who, SHIPS)]
                yield f"| {case.removesuffix(', one epoch')}{name} | {' | '.join(cells)} |"


def _against(lines: Mapping[str, Line], ours: str, theirs: str) -> tuple[str, str]:
    """Return speed and memory of one contender as multiples of another's."""
    if theirs not in lines or ours not in lines:
        return "", ""
    line, baseline = lines[ours], lines[theirs]
    speed = float(baseline["seconds"]) / float(line["seconds"])
    memory = float(line["megabytes"]) / float(baseline["megabytes"])
    return f"{speed:.1f}x", f"{memory:.2f}x"


def _case(lines: Sequence[Line]) -> Iterator[str]:
    yield "| | seconds | speed | memory above weights, MiB | memory | loss differs by | gradient |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for line in lines:
        half = float(line["spread"]) / 2
        yield (
            f"| {line['who']} | {float(line['seconds']):.2f} ± {half:.2f} "
            f"| {float(line['speedup']):.2f}x | {line['megabytes']} "
            f"| {float(line['memory']):.2f}x | {line['loss_difference']} "
            f"| {line['gradient_difference']} |"
        )


if __name__ == "__main__":
    start, _, rest = split_page(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(start + BEGIN + tables(Path(sys.argv[1])) + END + rest, encoding="utf-8")

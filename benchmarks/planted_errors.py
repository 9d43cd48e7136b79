"""Plant label errors in the pairs of the quick-start, and see whether its ledger finds them.

    python benchmarks/planted_errors.py SEED DIRECTORY

swaps chosen and rejected response in a tenth of the pairs, tunes the quick-start's model on them,
and compares `unidpo-mm ledger top --suspected` with what was planted. A second run has the same
errors, but every pair has the two scores of another pair: it shows how much of the result depends
on the scores. Chance is the precision of a list that is drawn at random.
"""

import json
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from unidpo_mm_quickstart.command import silence_libraries
from unidpo_mm_quickstart.stages import Start, assemble, tune, warm_up
from unidpo_mm_quickstart.training_rows import DOMAINS

from unidpo_mm.ledger.tables import read_ledger, top_pairs

SHARE = 0.1
"""Share of the pairs that are swapped."""

SCORES = ("score_chosen", "score_rejected")

Row = dict[str, Any]


def rewrite(start: Start, change: Callable[[list[Row]], None]) -> None:
    """Change the rows of all data files in place."""
    for domain in DOMAINS:
        path = start.data.file(domain)
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        change(rows)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def figures(run: Path, planted: set[str]) -> Row:
    """Return precision and recall of the suspected pairs, and the precision of the first ones."""
    ledger = read_ledger(run)
    suspected = top_pairs(ledger, "suspected", limit=None)["pair_id"]
    listed = [_row_of(name) in planted for name in suspected]
    pairs = ledger.visits.collect()["pair_id"].n_unique()
    return {
        "pairs": pairs,
        "planted": len(planted),
        "listed": len(listed),
        "right": sum(listed),
        "precision": sum(listed) / len(listed) if listed else None,
        "recall": sum(listed) / len(planted),
        "chance": len(planted) / pairs,
        "precision_of_20": sum(listed[:20]) / max(len(listed[:20]), 1),
    }


def _row_of(pair_id: str) -> str:
    """Return the id of the row in the data: the id of a pair adds its source and two digests."""
    return pair_id.rsplit(":", 2)[0].split(":", 1)[-1]


def main(seed: int, folder: Path) -> None:
    """Train both runs of a seed, and write their figures to `figures.json` in its directory."""
    silence_libraries()
    start = assemble(folder, seed, split="validation")
    start = replace(start, model=warm_up(start, None))
    draw = random.Random(seed)
    planted: set[str] = set()

    def plant(rows: list[Row]) -> None:
        for row in draw.sample(rows, round(SHARE * len(rows))):
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
            planted.add(row["id"])

    def shuffle(rows: list[Row]) -> None:
        scores = [[row[name] for name in SCORES] for row in rows]
        draw.shuffle(scores)
        for row, values in zip(rows, scores, strict=True):
            row.update(zip(SCORES, values, strict=True))

    results = {}
    for name, change in (("planted", plant), ("shuffled scores", shuffle)):
        rewrite(start, change)
        run = folder / name.replace(" ", "-")
        tune(start, run)
        results[name] = figures(run, planted)
        (folder / "figures.json").write_text(json.dumps(results, indent=2), encoding="utf-8")
        print(name, results[name], flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

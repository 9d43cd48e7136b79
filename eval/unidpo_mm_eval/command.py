"""Ask checkpoints, score what they say, compare them, exchange files: `unidpo-mm eval`."""

from collections.abc import Callable

import typer

from .cli.compare import compare_results
from .cli.data import data
from .cli.duel import judge_duel
from .cli.exchange import export_predictions, import_predictions
from .cli.list import list_benchmarks
from .cli.parity import compare_with_endpoint
from .cli.prefs import prefer
from .cli.report import report_results
from .cli.run import run_checkpoints
from .cli.score import score_predictions
from .cli.text import run_text

__all__ = ["evaluation"]

evaluation = typer.Typer(
    help="Ask checkpoints, score what they say, compare them, exchange files.",
    no_args_is_help=True,
)
EXAMPLES: dict[str, tuple[Callable[..., None], str]] = {
    "run": (run_checkpoints, "run before/ after/ -b pope --data POPE.tsv --out results/"),
    "prefs": (prefer, "prefs before/ after/ --data held_out.jsonl --out results/"),
    "score": (score_predictions, "score -b pope --data POPE.tsv --predictions answers.jsonl"),
    "text": (run_text, "text before/ after/ --tasks gsm8k --out results/"),
    "duel": (
        judge_duel,
        "duel a.jsonl b.jsonl -b mm_vet --data mm-vet.tsv --judge https://host/v1",
    ),
    "compare": (compare_results, "compare before.json after.json --html compare.html"),
    "parity": (
        compare_with_endpoint,
        "parity out/ --endpoint http://localhost:8000/v1 --served-model out -b pope "
        "--data POPE.tsv --out parity/",
    ),
    "report": (report_results, "report results/ --markdown table.md"),
    "export": (
        export_predictions,
        "export mmbench_submission --data MMBench.tsv --predictions answers.jsonl "
        "--out answers.xlsx",
    ),
    "import": (import_predictions, "import vlmevalkit answers.xlsx --out answers.jsonl"),
    "list": (list_benchmarks, "list --kind protocol"),
}
"""Command -> function and an example of its use, without ``unidpo-mm eval``."""

for name, (function, example) in EXAMPLES.items():
    evaluation.command(name, epilog=f"Example: unidpo-mm eval {example}")(function)
evaluation.add_typer(data, name="data")

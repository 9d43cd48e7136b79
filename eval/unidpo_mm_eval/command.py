"""Evaluate and compare checkpoints; exchange files with other tools."""

from collections.abc import Callable

import typer

from .cli.catalog import data_commands, run_list
from .cli.exchange import run_export, run_import
from .cli.results import run_compare, run_report
from .cli.run import run_benchmarks, run_parity, run_prefs, run_text
from .cli.score import run_duel, run_score

evaluation = typer.Typer(
    help="Evaluate and compare checkpoints; exchange files with other tools.", no_args_is_help=True
)
EXAMPLES: dict[str, tuple[Callable[..., None], str]] = {
    "run": (run_benchmarks, "run before/ after/ -b pope --data POPE.tsv --output results/"),
    "prefs": (run_prefs, "prefs before/ after/ --data held_out.jsonl --output results/"),
    "score": (run_score, "score -b pope --data POPE.tsv --predictions answers.jsonl"),
    "text": (run_text, "text before/ after/ --tasks gsm8k --output results/"),
    "duel": (
        run_duel,
        "duel a.jsonl b.jsonl -b mm_vet --data mm-vet.tsv --judge https://host/v1",
    ),
    "compare": (run_compare, "compare before.json after.json --html compare.html"),
    "parity": (
        run_parity,
        "parity out/ --endpoint http://localhost:8000/v1 --served-model out -b pope "
        "--data POPE.tsv --output parity/",
    ),
    "report": (run_report, "report results/ --markdown table.md"),
    "export": (
        run_export,
        "export mmbench_submission --data MMBench.tsv --predictions answers.jsonl "
        "--output answers.xlsx",
    ),
    "import": (run_import, "import vlmevalkit answers.xlsx --output answers.jsonl"),
    "list": (run_list, "list --kind protocol"),
}
"""Command -> function and an example of its use, without ``unidpo-mm eval``."""

for name, (function, example) in EXAMPLES.items():
    evaluation.command(name, epilog=f"Example: unidpo-mm eval {example}")(function)
evaluation.add_typer(data_commands, name="data")

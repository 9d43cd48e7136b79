"""Ask checkpoints, score what they say, compare them, exchange files: `unidpo-mm eval`."""

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
evaluation.command("run")(run_checkpoints)
evaluation.command("prefs")(prefer)
evaluation.command("score")(score_predictions)
evaluation.command("text")(run_text)
evaluation.command("duel")(judge_duel)
evaluation.command("compare")(compare_results)
evaluation.command("parity")(compare_with_endpoint)
evaluation.command("report")(report_results)
evaluation.command("export")(export_predictions)
evaluation.command("import")(import_predictions)
evaluation.command("list")(list_benchmarks)
evaluation.add_typer(data, name="data")

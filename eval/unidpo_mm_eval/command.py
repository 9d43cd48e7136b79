"""The command `unidpo-mm eval`."""

import typer

from .cli.catalog import data_commands, run_list
from .cli.exchange import run_export, run_import
from .cli.results import run_compare, run_report
from .cli.run import run_benchmarks, run_parity, run_prefs, run_text
from .cli.score import run_duel, run_score

evaluation = typer.Typer(
    help="Evaluate and compare checkpoints; exchange files with other tools.", no_args_is_help=True
)
evaluation.command("run")(run_benchmarks)
evaluation.command("prefs")(run_prefs)
evaluation.command("score")(run_score)
evaluation.command("text")(run_text)
evaluation.command("duel")(run_duel)
evaluation.command("compare")(run_compare)
evaluation.command("parity")(run_parity)
evaluation.command("report")(run_report)
evaluation.command("export")(run_export)
evaluation.command("import")(run_import)
evaluation.command("list")(run_list)
evaluation.add_typer(data_commands, name="data")

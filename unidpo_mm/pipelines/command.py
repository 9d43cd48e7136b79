"""The output of `unidpo-mm data make`: progress, counts, advice and the next commands."""

from rich.console import Console
from rich.text import Text

from ..inference.progress import progress
from .files import Share
from .funnel import Funnel
from .load import Making
from .recipe import Stage
from .results import write_files
from .run import Made, make
from .timing import duration

__all__ = ["make_and_show"]


def make_and_show(
    making: Making,
    *,
    command: str,
    until: Stage,
    pilot: int | None,
    share: tuple[int, int],
    merge: bool,
) -> None:
    """Make a data set and print what became of prompts, responses and pairs.

    Args:
        making: The recipe.
        command: The command that was called, for the next steps.
        until: The last stage to run.
        pilot: Number of prompts to use; `None` for all.
        share: Number of the share of this run, and number of shares.
        merge: Whether this run merges the shares.
    """
    place = Share.of_processes(*share, merge=merge)
    first = place.index % max(place.count // share[1], 1) == 0
    console = Console(stderr=True, soft_wrap=True, highlight=False, quiet=not first)
    with progress(visible=first) as on_progress:
        made = make(making, until=until, pilot=pilot, share=place, on_progress=on_progress)
    if not first:
        return
    if not place.merges and until != "prompts":
        sampled = made.stage == "sample"
        until_sample = " --until sample" if sampled else ""
        noun = "responses" if sampled else "scores"
        console.print(f"The {noun} of share {share[0]}/{share[1]} are finished. After all shares:")
        console.print(Text(f"  {command} --merge-shares{until_sample}"))
        return
    _print_funnel(made.funnel, console)
    for note in made.prompts.notes:
        console.print(Text(note))
    if until != "pair":
        console.print(Text(f"Stage '{until}' is finished: {made.files.directory}"))
        return
    record = write_files(making, made)
    for line in (*record["warnings"], *record["notes"]):
        console.print(Text(f"warning: {line}", style="yellow"))
    for line in record["advice"]:
        console.print(Text(line))
    _print_next(making, made, console)


SUBJECTS = {"outcomes": "outcomes of prompts", "given pairs": "pairs of sources"}
"""Subject of the funnel -> its name on the screen, if that differs."""


def _print_funnel(funnel: Funnel, console: Console) -> None:
    names = {subject: SUBJECTS.get(subject, subject) for subject in funnel.counts}
    width = max(map(len, names.values()), default=0) + 2
    for subject, name in names.items():
        console.print(Text.assemble((name.ljust(width), "bold"), funnel.sentence(subject)))


def _print_next(making: Making, made: Made, console: Console) -> None:
    model = making.recipe.model
    name = "MODEL" if model is None else model.name_or_path
    rows = made.files.rows
    times = [
        f"{stage} {duration(time.loading + time.seconds)}"
        for stage, time in made.timing.stages.items()
    ]
    console.print(Text(f"Time: {', '.join(times)}"))
    console.print(Text(f"Written: {rows}, {made.files.record}, {made.files.page}"))
    console.print(Text("Next:"))
    for line in (f"data check {rows}", f"init {rows} --model {name}", "train recipe.yaml"):
        console.print(Text(f"  unidpo-mm {line}"))

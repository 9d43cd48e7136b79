"""`make faults`: inject faults into runs and print a table of the outcomes.

Usage: python tests/faults [-v] [WORD...]. With words, only sections with one of them in their name
are run; `-v` prints the verdict for every bad input.
"""

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders import tiny_checkpoint
from faults import bad_inputs, damage, kills, moments
from faults.report import Section, run_sections
from support.forked_runs import preload

LORA = ("model.lora={r: 4, dropout: 0.1}", "model.freeze=null")
STREAM = ("data.sources.0.streaming=true", "data.stream_block=5", "loss.tau_good=3")


def wrong_inputs(section: Section, *, verbose: bool) -> None:
    """Try every invalid recipe, command line and environment."""
    rows, failures = bad_inputs.run_all()
    if verbose:
        print(bad_inputs.table(rows))  # noqa: T201
    for row in rows:
        section.count(f"{row.kind}, exit {row.code}")
    section.failures += [f"{row.name}: {row.verdict}: {row.message[-300:]}" for row in failures]


def two_commands(section: Section) -> None:
    """Run `data check` and `train --dry-run` on all invalid recipes; both must report the same."""
    number, different = bad_inputs.compare_all()
    section.cases += number
    section.counts["compared"] = number
    section.failures += [f"{name}: {text[:600]}" for name, text in different.items()]


def sections(folder: Path, model: Path, *, verbose: bool) -> dict[str, Callable[[Section], None]]:
    """Return all sections by name, the slowest first."""

    def bound(function: Callable, name: str, **arguments: object) -> Callable[[Section], None]:
        return functools.partial(function, folder=folder / name, model=model, **arguments)

    return {
        "kills, two processes": bound(kills.random_kills, "k2", kills=40, processes=2),
        "every place of a save": bound(kills.every_place_of_a_save, "places"),
        "signals": bound(moments.signals, "signals"),
        "damaged checkpoints": bound(damage.damaged_checkpoints, "damage"),
        "kills, one process": bound(kills.random_kills, "k1", kills=60, processes=1),
        "kills, LoRA": bound(kills.random_kills, "lora", kills=20, processes=1, keys=LORA),
        "kills, streaming": bound(kills.random_kills, "stream", kills=20, processes=1, keys=STREAM),
        "bad inputs": functools.partial(wrong_inputs, verbose=verbose),
        "data check as train": two_commands,
        "torchrun, a process killed": bound(kills.torchrun_kills, "torchrun", processes=2),
        "not finite": bound(moments.not_finite, "finite"),
        "full disk": bound(moments.full_disk, "disk"),
        "data workers": bound(moments.failing_workers, "workers"),
    }


def main() -> int:
    """Run the chosen sections and return the exit code."""
    words = [word for word in sys.argv[1:] if word != "-v"]
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        model = tiny_checkpoint(folder / "model", "llava")
        preload()
        all_sections = sections(folder, model, verbose="-v" in sys.argv)
        chosen = {
            name: run
            for name, run in all_sections.items()
            if not words or any(word in name for word in words)
        }
        return run_sections(chosen)


if __name__ == "__main__":
    sys.exit(main())

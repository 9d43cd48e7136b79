"""`make faults`: what a run survives, as a table. Usage: python tests/faults [SECTION...]."""

import functools
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from builders import tiny_checkpoint
from faults import kills
from faults.report import Section, run_sections
from support.forked_runs import preload


def sections(folder: Path, model: Path) -> dict[str, Callable[[Section], None]]:
    """Return every section by name."""

    def bound(function: Callable, name: str, **arguments: object) -> Callable[[Section], None]:
        return functools.partial(function, folder=folder / name, model=model, **arguments)

    return {
        "kills, one process": bound(kills.random_kills, "k1", kills=60, processes=1),
        "kills, two processes": bound(kills.random_kills, "k2", kills=40, processes=2),
        "every place of a save": bound(kills.every_place_of_a_save, "places"),
        "torchrun, a process killed": bound(kills.torchrun_kills, "torchrun", processes=2),
    }


def main() -> int:
    """Run the sections whose name contains one of the arguments, or all."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        model = tiny_checkpoint(folder / "model", "llava")
        preload()
        chosen = {
            name: run
            for name, run in sections(folder, model).items()
            if len(sys.argv) < 2 or any(word in name for word in sys.argv[1:])
        }
        return run_sections(chosen.items())


if __name__ == "__main__":
    sys.exit(main())

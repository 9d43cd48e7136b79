"""The table that `make faults` prints."""

import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

__all__ = ["Section", "run_sections"]

PARALLEL = 2
"""Number of sections that run at the same time."""


@dataclass
class Section:
    """The results of a group of faults.

    Attributes:
        name: Name of the group.
        cases: Number of injected faults.
        counts: Outcome -> number of cases, for the table.
        failures: Descriptions of wrong outcomes, one line each.
        seconds: Wall time.
    """

    name: str
    cases: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, outcome: str) -> None:
        """Count a case by its outcome."""
        self.cases += 1
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def expect(self, condition: bool, text: str) -> bool:
        """Record a failure unless a condition holds, and return whether it holds."""
        if not condition:
            self.failures.append(text)
        return condition

    def line(self) -> str:
        """Return the row of the table."""
        counts = ", ".join(f"{number} {outcome}" for outcome, number in self.counts.items())
        verdict = "ok" if not self.failures else f"{len(self.failures)} WRONG"
        return f"{self.name:<34} {self.cases:>4}  {verdict:<9} {self.seconds:>5.0f} s  {counts}"


def run_sections(sections: Mapping[str, Callable[[Section], None]]) -> int:
    """Run sections, print a table row for each and all failures, and return the exit code."""
    done = []
    context = multiprocessing.get_context("fork")  # children keep the imported modules
    with ProcessPoolExecutor(PARALLEL, mp_context=context) as pool:
        futures = [pool.submit(_run, name, run) for name, run in sections.items()]
        for future in as_completed(futures):
            section = future.result()
            print(section.line(), flush=True)  # noqa: T201 - the output of this command
            done.append(section)
    for section in done:
        for failure in section.failures:
            print(f"WRONG  {section.name}: {failure}")  # noqa: T201
    cases = sum(section.cases for section in done)
    wrong = sum(len(section.failures) for section in done)
    print(f"{cases} faults, {wrong} wrong outcomes")  # noqa: T201
    return 1 if wrong else 0


def _run(name: str, run: Callable[[Section], None]) -> Section:
    section = Section(name)
    began = time.monotonic()
    try:
        run(section)
    except Exception as error:  # must not stop the other sections
        section.failures.append(f"the section itself failed: {type(error).__name__}: {error}")
    section.seconds = time.monotonic() - began
    return section

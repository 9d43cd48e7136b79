"""Worker processes that grade: as many as there are cores, each killed when it takes too long."""

import json
import os
import queue
import select
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from unidpo_mm.errors import UniDPOError

from ...data.samples import Judged

__all__ = ["grade_all"]

SECONDS = 10.0
"""What one answer may take; more counts as wrong."""
START = 120.0
"""Seconds that a process may take to load its libraries."""
TIMEOUT = "timeout"
DIED = "the grader died"


def grade_all(
    profile: str,
    answers: Sequence[tuple[str, str]],
    *,
    units: bool = False,
    seconds: float = SECONDS,
    workers: int | None = None,
) -> list[Judged]:
    """Returns what each response scores.

    Args:
        profile: Name of the rules.
        answers: (gold, response) of each.
        units: Units of an answer stay where the rules would take them out.
        seconds: What one may take.
        workers: Processes; None for one a core, at most one an answer.

    Raises:
        UniDPOError: If a process cannot be started.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(answers)):
        todo.put(number)
    found: list[Judged | None] = [None] * len(answers)

    def work() -> None:
        with _Worker(profile, units) as worker:
            while True:
                try:
                    number = todo.get_nowait()
                except queue.Empty:
                    return
                found[number] = worker.grade(*answers[number], seconds)

    count = min(workers or os.cpu_count() or 1, max(len(answers), 1))
    with ThreadPoolExecutor(count) as threads:
        for running in [threads.submit(work) for _ in range(count)]:
            running.result()
    return [one for one in found if one is not None]


class _Worker:
    """One process, started when it is needed."""

    def __init__(self, profile: str, units: bool) -> None:
        self.arguments = (profile, "units") if units else (profile,)
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def grade(self, gold: str, response: str, seconds: float) -> Judged:
        process = self.process or self._start()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([gold, response]) + "\n")
            process.stdin.flush()
            line = _line(process, seconds)
        except BrokenPipeError:
            line = ""
        if not line:
            self._stop()
            return Judged(0.0, None, note=TIMEOUT if line is None else DIED)
        found = json.loads(line)
        return Judged(found["score"], found["answer"], note=found.get("note", ""))

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "unidpo_mm_eval.scorers.math.worker", *self.arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        if not _line(self.process, START):
            self._stop()
            raise UniDPOError(
                f"the grader '{self.arguments[0]}' does not start; `{' '.join(command)}` says why"
            )
        return self.process

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _line(process: "subprocess.Popen[str]", seconds: float) -> str | None:
    """Returns the next line that a process writes, nothing if it ended, None if it takes longer.

    A process writes one line for each that it reads, so that no line waits in the buffer.
    """
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else None

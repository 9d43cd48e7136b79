"""A pool of grading processes, at most one per core, each killed when an answer takes too long."""

import json
import math
import os
import queue
import select
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from unidpo_mm.errors import UniDPOError

from ...data.samples import Grade

SECONDS = 10.0
"""Time limit per answer; a slower answer counts as wrong."""
START_SECONDS = 120.0
"""Time limit for loading the libraries of a process."""
ANSWERS_PER_PROCESS = 20
"""Minimum number of answers per further process: loading the libraries takes as long as they."""
TIMEOUT = "timeout"
DIED = "the grader died"


def grade_all(
    profile: str,
    answers: Sequence[tuple[str, str]],
    *,
    units: bool = False,
    seconds: float = SECONDS,
    workers: int | None = None,
) -> list[Grade]:
    """Grade each (gold, response) pair.

    `seconds` is the time limit per answer; `workers` is by default one per core, or fewer if there
    are few answers.
    """
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(answers)):
        todo.put(number)
    grades: list[Grade | None] = [None] * len(answers)

    def work() -> None:
        with _Worker(profile, units) as worker:
            while True:
                try:
                    number = todo.get_nowait()
                except queue.Empty:
                    return
                grades[number] = worker.grade(*answers[number], seconds)

    count = workers or min(os.cpu_count() or 1, math.ceil(len(answers) / ANSWERS_PER_PROCESS))
    count = max(min(count, len(answers)), 1)
    with ThreadPoolExecutor(count) as threads:
        for running in [threads.submit(work) for _ in range(count)]:
            running.result()
    return [grade for grade in grades if grade is not None]


class _Worker:
    """One process, started on first use."""

    def __init__(self, profile: str, units: bool) -> None:
        self.arguments = (profile, "units") if units else (profile,)
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def grade(self, gold: str, response: str, seconds: float) -> Grade:
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
            return Grade(0.0, None, note=TIMEOUT if line is None else DIED)
        result = json.loads(line)
        return Grade(result["score"], result["answer"], note=result.get("note", ""))

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "unidpo_mm_eval.scorers.math.worker", *self.arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        if not _line(self.process, START_SECONDS):
            self._stop()
            text = f"the grader '{self.arguments[0]}' does not start"
            raise UniDPOError(f"{text}. Run `{' '.join(command)}` for the reason")
        return self.process

    def _stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def _line(process: "subprocess.Popen[str]", seconds: float) -> str | None:
    """Return the next line of a process, an empty string if it ended, `None` after a timeout.

    A process writes one line per line that it reads, so no line is left in the buffer.
    """
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline() if ready else None

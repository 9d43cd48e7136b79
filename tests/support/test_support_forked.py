"""The helper that runs a function in a forked child."""

import logging
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from support.forked import run_forked
from tqdm.std import TqdmDefaultWriteLock, tqdm


def test_streams_environment_and_directory_are_those_of_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORKED_REMOVED", "x")

    def work() -> None:
        values = os.environ["FORKED_SET"], "FORKED_REMOVED" in os.environ, Path.cwd() == tmp_path
        sys.stdout.write(" ".join(map(str, values)) + "\n")
        sys.stderr.write("to stderr\n")
        os.system("echo from a grandchild")
        sys.exit(3)

    done = run_forked(work, env={"FORKED_SET": "yes", "FORKED_REMOVED": None}, cwd=tmp_path)
    assert (done.code, done.signal) == (3, None)
    assert done.stdout == "yes False True\nfrom a grandchild\n"
    assert done.stderr == "to stderr\n"
    assert "FORKED_SET" not in os.environ
    assert os.environ["FORKED_REMOVED"] == "x"


def test_an_exception_is_a_traceback_and_exit_code_1():
    done = run_forked(lambda: 1 / 0)
    assert done.code == 1
    assert "ZeroDivisionError" in done.stderr
    assert run_forked(lambda: None).code == 0


def test_a_warning_is_on_standard_error_as_in_a_new_interpreter():
    done = run_forked(lambda: logging.getLogger("unidpo_mm.x").warning("be %s", "careful"))
    assert done.stderr == "be careful\n"
    assert logging.root.handlers  # those of pytest


def test_a_signal_and_a_time_limit_are_reported():
    killed = run_forked(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert (killed.code, killed.signal, killed.timed_out) == (None, signal.SIGTERM, False)
    late = run_forked(lambda: time.sleep(60), timeout=0.2)
    assert (late.signal, late.timed_out) == (signal.SIGKILL, True)
    assert late.seconds < 10


@pytest.mark.parametrize("own_lock", [False, True])
def test_a_child_killed_with_the_lock_of_progress_bars_does_not_block_others(
    own_lock: bool,
) -> None:
    class Lock(TqdmDefaultWriteLock):
        mp_lock = multiprocessing.RLock()  # not that of this process, which must not block either

    bar = type("bar", (tqdm,), {"_lock": Lock()} if own_lock else {})
    bar.get_lock()

    def die_with_the_lock() -> None:
        bar.get_lock().acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    def use_the_lock() -> None:
        with bar.get_lock():
            pass

    assert run_forked(die_with_the_lock).signal == signal.SIGKILL
    assert run_forked(use_the_lock, timeout=10).code == 0

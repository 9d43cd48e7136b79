"""A signal ends a run with a message and an exit code; its responses are stored."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import BadParameter
from support.eval_commands import run, text_of
from support.small_benchmarks import option_table, responses_of
from support.stub_server import prompt_text, server
from unidpo_mm_eval.cli import options as printing

from unidpo_mm.errors import UniDPOError
from unidpo_mm.inference.progress import StoppedBySignal, stop_on_signal
from unidpo_mm.signals import EXIT_CODE


def signalled(number: int, *, verbose: bool = True) -> None:
    with stop_on_signal(verbose=verbose):
        os.kill(os.getpid(), number)
        time.sleep(5)


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Restore default handlers: tests that `nohup` starts inherit signals that are ignored."""
    defaults = dict.fromkeys((signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP), signal.SIG_DFL)
    handlers = {signal.SIGINT: signal.default_int_handler, **defaults}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, EXIT_CODE), (signal.SIGUSR1, EXIT_CODE), (signal.SIGHUP, EXIT_CODE),
     (signal.SIGINT, 130)],
)  # fmt: skip
def test_signals_end_a_run(number: int, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedBySignal) as stopped:
        signalled(number)
    assert stopped.value.code == code
    assert signal.getsignal(number) is before
    output = capfd.readouterr().err
    assert f"Received {signal.Signals(number).name}: all responses so far are stored" in output
    assert "Run the same command again to resume" in output


def test_only_the_first_process_prints(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoppedBySignal):
        signalled(signal.SIGTERM, verbose=False)
    assert not capfd.readouterr().err


def test_replies_are_stored_and_the_rest_is_requested_later(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    words = ("run", "--served-model", "x", "-b", "ai2d", "--data", data, "--output", out,
             "--server", "openai")  # fmt: skip
    replies: list[str] = []

    def speak(request: Any, before: int) -> str:
        replies.append(prompt_text(request))
        if len(replies) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05 * (len(replies) > 4))
        return "A"

    from unidpo_mm_eval.run import served

    ask = served.request_predictions.__kwdefaults__
    ask["concurrency"], before = 2, ask["concurrency"]
    try:
        with server(speak) as stub:
            done = run(*words, "--endpoint", stub.url)
            assert done.exit_code == EXIT_CODE, text_of(done)
            kept = responses_of(out / "x" / "ai2d.parts" / "0.jsonl")
            first = len(replies)
            assert 4 <= first <= 7  # of 11: what was on its way is waited for
            assert len(kept) == first
            assert "all responses so far are stored" in capfd.readouterr().err
            done = run(*words, "--endpoint", stub.url)
            assert done.exit_code == 0, text_of(done)
            assert len(replies) == 11
    finally:
        ask["concurrency"] = before


def test_a_process_that_is_not_the_first_waits_before_it_prints_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(printing.time, "sleep", waits.append)
    for error in (UniDPOError("wrong"), BadParameter("wrong")):
        for rank in ("0", "1"):
            monkeypatch.setenv("LOCAL_RANK", rank)
            with pytest.raises(type(error)), printing.errors_once():
                raise error
    assert waits == [printing.GRACE] * 2

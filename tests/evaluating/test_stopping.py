"""A signal ends a run with a message and a code, and what was answered is kept."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import option_table, said
from click import BadParameter
from scores import run, told
from served import server, words_of
from unidpo_mm_eval.cli import printed_once as printing
from unidpo_mm_eval.engine.stopping import EXIT_CODE, Stopped, stoppable

from unidpo_mm.errors import UniDPOError


def signalled(number: int, *, speaks: bool = True) -> None:
    with stoppable(speaks=speaks):
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
    with pytest.raises(Stopped) as stopped:
        signalled(number)
    assert stopped.value.code == code
    assert signal.getsignal(number) is before
    shown = capfd.readouterr().err
    assert f"Received {signal.Signals(number).name}: all answers so far are kept" in shown
    assert "To resume, run the same command" in shown


def test_only_the_first_process_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped):
        signalled(signal.SIGTERM, speaks=False)
    assert not capfd.readouterr().err


def test_answers_of_a_server_are_kept_and_the_rest_is_asked_later(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    words = ("run", "--served-model", "x", "-b", "ai2d", "--data", data, "--out", out,
             "--server", "openai")  # fmt: skip
    answered: list[str] = []

    def speak(request: Any, before: int) -> str:
        answered.append(words_of(request))
        if len(answered) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.05 * (len(answered) > 4))
        return "A"

    from unidpo_mm_eval.engine import endpoint

    ask = endpoint.answer_by_endpoint.__kwdefaults__
    ask["concurrent"], before = 2, ask["concurrent"]
    try:
        with server(speak) as stub:
            done = run(*words, "--endpoint", stub.url)
            assert done.exit_code == EXIT_CODE, told(done)
            kept = said(out / "x" / "ai2d.parts" / "0.jsonl")
            first = len(answered)
            assert 4 <= first <= 7  # of 11: what was on its way is waited for
            assert len(kept) == first
            assert "all answers so far are kept" in capfd.readouterr().err
            done = run(*words, "--endpoint", stub.url)
            assert done.exit_code == 0, told(done)
            assert len(answered) == 11
    finally:
        ask["concurrent"] = before


def test_a_process_that_is_not_the_first_waits_before_it_prints_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(printing.time, "sleep", waits.append)
    for error in (UniDPOError("wrong"), BadParameter("wrong")):
        for rank in ("0", "1"):
            monkeypatch.setenv("LOCAL_RANK", rank)
            with pytest.raises(type(error)), printing.printed_once():
                raise error
    assert waits == [printing.GRACE] * 2

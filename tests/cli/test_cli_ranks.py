"""Only the first process of a run prints notices and warnings."""

import logging
import warnings

import pytest

from unidpo_mm.cli.ranks import LOGGERS, is_first_process, quiet_other_processes


@pytest.fixture(autouse=True)
def levels_restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "warning")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.mark.parametrize(("rank", "first"), [(None, True), ("0", True), ("1", False)])
def test_warnings_of_other_processes_are_not_printed(monkeypatch, caplog, rank, first):
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert is_first_process() is first
    quiet_other_processes()
    logger = logging.getLogger("unidpo_mm.training.setup")
    logger.warning("a notice")
    logger.error("an error")
    with warnings.catch_warnings(record=True) as caught:
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
    assert ("a notice" in caplog.text) is first
    assert "an error" in caplog.text
    assert bool(caught) is first

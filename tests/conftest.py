"""Fixtures of all tests: no network, one thread, a fixed seed, tiny checkpoints."""

import functools
import gc
import itertools
import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LONG_FILES = (
    "test_distributed.py",
    "test_distributed_command.py",
    "test_trainer_checkpoints.py",
    "test_cached_reference.py",
    "test_run.py",
    "test_text.py",
    "test_math.py",
    "test_statistics.py",
)
"""Files that start first, so that none of them runs alone at the end."""

gc.disable()  # until all tests are collected: imports create many objects and little garbage


@pytest.hookimpl(trylast=True)  # after the reporter has been made
def pytest_configure(config: pytest.Config) -> None:
    """Print the name of a failed test at once, so that a run which is interrupted shows it, too."""
    if (reporter := config.pluginmanager.get_plugin("terminalreporter")) is not None:
        config.pluginmanager.register(FailuresAtOnce(reporter))


class FailuresAtOnce:
    """A plugin of pytest: one line for each failure, when it happens."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the name of the test and the line that failed."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = str(crash.message).partition("\n")[0] if crash else ""
            self.reporter.write_line(f"\nFAILED {report.nodeid}: {reason[:300]}", red=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move the tests of long files to the front; `make test` has workers take files in order."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


def pytest_collection_finish() -> None:
    """Enable garbage collection, except of what the imports created."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="module", autouse=True)
def freeze_long_lived_objects() -> None:
    """Hide what is alive before the first test of a file from the garbage collector.

    Accelerate collects garbage at the start of each training run. With the classes and functions
    of torch and transformers in reach, that takes longer than a tiny run itself.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Import what forked runs need, and give the runs of a file a cache of their own."""
    from support.forked_runs import preload

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNIDPO_MM_CACHE", str(tmp_path_factory.mktemp("cache")))
        preload()
        yield


def pytest_report_header() -> str:
    """Return the versions of the libraries, which `make test-compat` replaces by others."""
    names = ("torch", "transformers", "peft", "accelerate")
    return ", ".join(f"{name} {version(name)}" for name in names)


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines; several processes on this one may talk."""
    if request.node.get_closest_marker("network") is None:
        connect = socket.socket.connect

        def guarded(self: socket.socket, address: Any) -> None:
            host = address[0] if isinstance(address, tuple) else "localhost"
            if host not in ("localhost", "127.0.0.1", "::1", socket.gethostname()):
                raise OSError(f"a test without the marker 'network' connects to {host}")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return new directories; `mktemp` itself would list all directories of all tests each time."""
    folder = tmp_path_factory.mktemp("caches")
    return map(folder.joinpath, map(str, itertools.count()))


@pytest.fixture(autouse=True)
def cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test a cache directory of its own: rows are indexed there."""
    folder = next(caches)
    folder.mkdir()
    monkeypatch.setenv("UNIDPO_MM_CACHE", str(folder))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random numbers, whatever ran before it."""
    random.seed(0)
    if "torch" in sys.modules:  # importing it takes longer than most tests
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny random checkpoint by model type; each is built once a run."""
    from builders import tiny_checkpoint

    folders: dict[str, Path] = {}

    def find(model_type: str) -> Path:
        if model_type not in folders:
            folder = tmp_path_factory.mktemp(model_type)
            folders[model_type] = tiny_checkpoint(folder, model_type)
        return folders[model_type]

    return find


@pytest.fixture(scope="module")
def unchanged(checkpoint: Callable[[str], Path]) -> Callable[[str], Any]:
    """Return a loaded tiny model by model type, for tests that do not change it.

    Each is loaded once per file.
    """
    from builders import load_tiny

    return functools.cache(lambda model_type: load_tiny(checkpoint(model_type)))

"""Unexpected errors become one line and a log file; several processes print an error once."""

import errno
import importlib
import inspect
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.forked import Finished, run_forked
from typer.testing import CliRunner

from unidpo_mm.cli import failures, ranks
from unidpo_mm.cli import main as cli
from unidpo_mm.cli.failures import ACTIVITIES, activity, report_crash, report_error
from unidpo_mm.errors import UniDPOError


def crash(monkeypatch: pytest.MonkeyPatch, error: Exception, *arguments: str) -> object:
    def broken(arguments):
        raise error

    monkeypatch.setattr(cli, "build_app", broken)
    monkeypatch.setattr(sys, "argv", ["unidpo-mm", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_an_unexpected_error_is_one_line_and_a_log_file(monkeypatch, capsys):
    code = crash(monkeypatch, RuntimeError("two\nlines"), "train", "r.yaml", "train.hub_token=abc")
    assert code == 1
    message = capsys.readouterr().err
    assert re.fullmatch(
        r"error: RuntimeError while running unidpo-mm train: two lines\. The traceback is in "
        r"\S+unidpo-mm-error-\S+\.log\n",
        message,
    )
    path = Path(message.split()[-1])
    log = path.read_text()
    path.unlink()
    assert "Traceback (most recent call last)" in log
    assert "command: unidpo-mm train r.yaml train.hub_token=***" in log
    assert "torch: " in log


def test_errors_of_disk_and_memory_have_a_remedy(monkeypatch, capsys):
    crash(monkeypatch, OSError(errno.ENOSPC, "No space left on device"), "train")
    assert "Free some space and start the same command again" in capsys.readouterr().err
    crash(monkeypatch, MemoryError(), "train")
    assert "train.memory=auto" in capsys.readouterr().err


def test_the_innermost_activity_is_reported():
    from unidpo_mm.config import load_recipe

    def check(recipe):
        raise KeyError("x")

    path = Path(__file__).resolve().parents[2] / "configs" / "quickstart" / "uni_dpo.yaml"
    with pytest.raises(KeyError) as caught:
        load_recipe(path, checks=[check])
    assert activity(caught.value, ["train"]) == "reading the recipe"


def test_every_function_with_an_activity_exists():
    for file, name in ACTIVITIES:
        module = file.removesuffix(".py").replace("/", ".")
        package = "" if module.startswith("transformers.") else "unidpo_mm."
        loaded = importlib.import_module(package + module)
        classes = [member for _, member in inspect.getmembers(loaded, inspect.isclass)]
        assert any(hasattr(owner, name) for owner in (loaded, *classes)), (file, name)


def test_bare_commands_show_their_help_and_exit_with_zero(capsys, monkeypatch):
    for arguments in ([], ["data"], ["cache"], ["eval"]):
        monkeypatch.setattr(sys, "argv", ["unidpo-mm", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert caught.value.code == 0
        assert "Usage: unidpo-mm" in capsys.readouterr().out


@pytest.mark.parametrize(
    "line",
    [
        "train",
        "sweep",
        "migrate",
        "list",
        "data check",
        "data preview",
        "data convert",
        "cache info",
        "cache verify",
        "cache prune",
    ],
)
def test_help_is_readable_at_80_columns_and_has_an_example(line: str):
    arguments = [*line.split(), "--help"]
    result = CliRunner().invoke(cli.build_app(arguments), arguments, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert all(len(text) <= 80 for text in result.output.splitlines())
    assert "…" not in result.output
    assert f"Example: unidpo-mm {line}" in " ".join(result.output.split())


def run_ranks(messages: dict[int, str], count: int, tmp_path: Path) -> list[str]:
    """Let the processes of a run fail with these messages; return what each prints."""

    def end(rank: int) -> Finished:
        env = {
            "RANK": str(rank + 4),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(count),
            "WORLD_SIZE": str(count + 4),
            "TORCHELASTIC_RUN_ID": tmp_path.name,
        }
        return run_forked(lambda: sys.exit(report_error(UniDPOError(messages[rank]))), env=env)

    with ThreadPoolExecutor(len(messages)) as pool:
        ends = list(pool.map(end, messages))
    assert {done.code for done in ends} == {2}, ends
    return [done.stderr for done in ends]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ranks, "WAIT_SECONDS", 1.5)
    monkeypatch.setattr(ranks.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.usefixtures("quick")
def test_an_error_of_all_processes_is_printed_once_without_a_rank(tmp_path: Path):
    printed = run_ranks({0: "no data", 1: "no data", 2: "no data"}, 3, tmp_path)
    assert sorted(printed) == ["", "", "error: no data\n"]


@pytest.mark.usefixtures("quick")
def test_an_error_of_one_process_is_printed_with_its_rank(tmp_path: Path):
    assert run_ranks({1: "no space"}, 2, tmp_path) == ["error: [rank 5] no space\n"]


@pytest.mark.usefixtures("quick")
def test_different_errors_are_all_printed(tmp_path: Path):
    printed = run_ranks({0: "no data", 1: "no space", 2: "no data"}, 3, tmp_path)
    assert printed == ["error: [ranks 4, 6] no data\n", "error: [rank 5] no space\n", ""]


def test_without_a_temporary_directory_every_process_prints(monkeypatch, capsys):
    def refuse() -> Path:
        raise OSError("read-only")

    monkeypatch.setattr(ranks, "_folder", refuse)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "1")
    report_error(UniDPOError("no data"))
    assert capsys.readouterr().err == "error: [rank 1] no data\n"


def test_a_log_that_cannot_be_written_goes_to_standard_error(monkeypatch, capsys):
    def refuse(**kwargs):
        raise OSError("read-only")

    monkeypatch.setattr(failures.tempfile, "mkstemp", refuse)
    assert report_crash(ValueError("x"), ["train"]) == 1
    message = capsys.readouterr().err
    assert "ValueError: x" in message
    assert "The traceback is in the lines above" in message

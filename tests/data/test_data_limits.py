"""Files and values that would take gigabytes, or break Python, are refused with their place."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm.config import SourceOptions
from unidpo_mm.data import files
from unidpo_mm.data.load import read_records, read_sources

PAIR = {"prompt": "What?", "chosen": "yes", "rejected": "no"}
LINE = json.dumps(PAIR).encode() + b"\n"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_line_that_is_too_long_is_reported_with_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 1 << 20)
    content = LINE + b'{"prompt": "' + b"a" * 3_000_000 + b'"}\n' + LINE
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    loaded = read_sources([SourceOptions(path=str(path))])
    (problem,) = loaded.problems
    assert problem.where == f"{path} row 2"
    assert problem.message == "the line is longer than 1 MiB"
    assert loaded.source_problems == [problem]
    assert len(loaded.rows) == 1


def test_a_long_line_within_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**PAIR, "note": "a" * 2_000_000}))
    assert len(read_sources([SourceOptions(path=str(path))]).rows) == 1


def test_a_json_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * 20_000_000 + b"]"))
    monkeypatch.setattr(files, "FREE_BYTES", 1_000_000)
    (problem,) = read_sources([SourceOptions(path=str(path))]).problems
    assert problem.where == str(path)
    assert problem.message.startswith("the file contains more than")
    path.write_bytes(gzip.compress(json.dumps([PAIR]).encode()))
    assert len(read_sources([SourceOptions(path=str(path))]).rows) == 1
    monkeypatch.setattr(files, "MAX_JSON_BYTES", 10)
    plain = tmp_path / "rows.json"
    plain.write_text(json.dumps([PAIR]))
    (problem,) = read_sources([SourceOptions(path=str(plain))]).problems
    assert problem.message.startswith("the file contains more than")


HUGE = 10**5000
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize("name", ["prompt", "chosen", "score_chosen", "weight", "id", "domain",
                                  "images", "tools", "system"])  # fmt: skip
@pytest.mark.parametrize(
    "value", [HUGE, DEEP, [HUGE], {"a": HUGE}], ids=["integer", "nested", "list", "dict"]
)
def test_values_that_cannot_be_printed_are_problems(name: str, value: Any) -> None:
    loaded = read_records([{**PAIR, name: value}])
    assert loaded.problems or name == "id"
    for problem in loaded.problems:
        assert problem.where.startswith("data set 'data' row 1")
        assert len(str(problem)) < 3000


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, '{"a": ' * 100_000])
def test_json_beyond_what_python_reads_is_reported_with_its_line(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(LINE + b'{"prompt": ' + value.encode() + b"}\n")
    (problem,) = read_sources([SourceOptions(path=str(path))]).problems
    assert problem.where == f"{path} row 2"
    assert "the line is not valid JSON" in problem.message


def test_json_text_inside_a_row_has_the_same_limits() -> None:
    call = {"function": {"name": "f", "arguments": '{"a": ' + "9" * 5000 + "}"}}
    turns = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "1"},
    ]
    (problem,) = read_records([{**PAIR, "prompt": turns}]).problems
    assert "not valid JSON" in problem.message

"""The store of responses: a subclass states which settings may differ when a run resumes."""

from pathlib import Path

import pytest

from unidpo_mm.errors import DataError
from unidpo_mm.inference.store import ResponseStore


def test_a_resumed_run_keeps_complete_lines_and_merges_in_order(tmp_path: Path):
    path = tmp_path / "out.jsonl"
    first = ResponseStore(path, {"model": "m"})
    first.open()
    first.add([{"id": "b", "response": "2"}])
    with first.part.open("ab") as file:
        file.write(b'{"id": "a", "resp')  # a kill in the middle of a line
    second = ResponseStore(path, {"model": "m"})
    second.complete(["a", "b"], lambda: second.add([{"id": "a", "response": "1"}]))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines == [
        '{"manifest": {"model": "m"}}',
        '{"id": "a", "response": "1"}',
        '{"id": "b", "response": "2"}',
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.jsonl"]
    assert ResponseStore(path, {"model": "m"}).manifest == {"model": "m"}


def test_other_settings_are_refused_unless_declared_unstable(tmp_path: Path):
    class Lenient(ResponseStore):
        unstable = frozenset({"seen"})

    path = tmp_path / "out.jsonl"
    store = Lenient(path, {"model": "m", "seen": 1})
    store.complete(["a"], lambda: store.add([{"id": "a", "response": ""}]))
    Lenient(path, {"model": "m", "seen": 2}).open()
    with pytest.raises(DataError, match='responses were made with different settings: model was "'):
        Lenient(path, {"model": "n", "seen": 1}).open()


@pytest.mark.parametrize("line", ["3", "[]", '{"response": "a"}', "{"])
def test_a_line_that_is_not_a_record_is_reported(tmp_path: Path, line: str):
    path = tmp_path / "out.jsonl"
    path.write_text(f'{{"manifest": {{}}}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError, match="row 2: the line is not a recorded response"):
        ResponseStore(path, {}).open()

"""The files of a ledger: reading while a run writes, damaged ends, names, and starting over."""

from pathlib import Path
from typing import Any

import numpy
import pytest
from support.ledgers import write_ledger

from unidpo_mm.errors import DataError
from unidpo_mm.ledger import files
from unidpo_mm.ledger.columns import COLUMNS, column_of_term, names
from unidpo_mm.ledger.files import LedgerFiles, bytes_of, later_parts, schema_of, table_of
from unidpo_mm.ledger.tables import over_time, pair_history, read_ledger, top_pairs

SCHEMA = schema_of((), {"unit": "pair", "terms": [], "loss": {"name": "dpo"}})


def lines(steps: list[int], **changed: Any) -> bytes:
    count = len(steps)
    values: dict[str, Any] = {name: numpy.zeros(count) for name in names(COLUMNS)}
    values |= {"step": steps, "rank": [0] * count, "position": range(count)}
    values |= {name: ["x"] * count for name in ("pair_id", "row_id", "source", "domain")}
    values |= {"applied": [True] * count, "weight": numpy.ones(count), **changed}
    return bytes_of(table_of(SCHEMA, values))


def steps(output_dir: Path) -> list[int]:
    values: list[int] = read_ledger(output_dir).visits.collect()["step"].to_list()
    return values


def test_a_part_that_is_written_meanwhile_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    writer.append(lines([1, 1, 2]))
    writer.commit(2)
    writer.append(lines([3, 4]))
    read = files._open_batches

    def read_then_commit(path: Path) -> Any:
        batches = list(read(path))
        writer.commit(4)
        return batches

    assert steps(tmp_path) == [1, 1, 2, 3, 4]
    monkeypatch.setattr(files, "_open_batches", read_then_commit)
    assert steps(tmp_path) == [1, 1, 2, 3, 4]
    assert not (tmp_path / "ledger" / files.OPEN).exists()


def test_rewinding_removes_later_parts_and_open_lines(tmp_path: Path) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    for step in (2, 4, 6):
        writer.append(lines([step - 1, step]))
        writer.commit(step)
    writer.append(lines([7]))
    assert [path.name for path in later_parts(tmp_path, 4)] == [
        "steps-to-000000006.parquet",
        files.OPEN,
    ]
    writer.rewind(4)
    assert steps(tmp_path) == [1, 2, 3, 4]
    assert writer.open_lines == 0


def test_fillers_have_no_line(tmp_path: Path) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    writer.append(lines([1, 1, 2], weight=numpy.array([1.0, 0.0, 0.5])))
    writer.commit(2)
    assert read_ledger(tmp_path).visits.collect()["weight"].to_list() == [1.0, 0.5]


def test_ids_may_contain_half_a_character(tmp_path: Path) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    writer.append(lines([1], row_id=["file-\udce9"]))
    assert read_ledger(tmp_path).visits.collect()["row_id"].to_list() == [r"file-\udce9"]


def test_a_pair_is_found_by_its_row_even_if_other_rows_begin_alike(tmp_path: Path) -> None:
    ids = [f"r{number}:{number:016x}:{number + 1:016x}" for number in range(30)]
    write_ledger(tmp_path, [*ids, "r3:a:b"], epochs=1)
    opened = read_ledger(tmp_path)
    assert pair_history(opened, "r7")["pair_id"].to_list() == [ids[7]]
    assert pair_history(opened, ids[2])["pair_id"].to_list() == [ids[2]]
    assert pair_history(opened, "r12:00")["pair_id"].to_list() == [ids[12]]
    with pytest.raises(DataError, match=r"'r3' matches 2 pairs: .*Use the id of one of them"):
        pair_history(opened, "r3")


def test_skipped_steps_count_in_no_question(tmp_path: Path) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    loss = numpy.array([1.0, 1.0, 100.0, 3.0])
    writer.append(lines([1, 2, 3, 4], loss=loss, applied=[True, True, False, True]))
    table = over_time(read_ledger(tmp_path), periods=1)
    assert table["visits"].to_list() == [3]
    assert table["loss"].to_list() == [pytest.approx(5 / 3)]


def test_a_ledger_without_contributions_has_no_ranking_by_them(tmp_path: Path) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    writer.append(lines([1, 2], contribution=numpy.full(2, numpy.nan)))
    opened = read_ledger(tmp_path)
    assert len(top_pairs(opened, "ignored")) == 0
    assert over_time(opened, periods=1)["effective_by_contribution"].to_list() == [None]


@pytest.mark.parametrize("term", ["loss", "accuracy", "visits", "pair_weight", "step"])
def test_a_term_gets_another_name_if_a_column_has_it(term: str) -> None:
    assert column_of_term(term) == f"term_{term}"
    assert column_of_term("w_qual") == "w_qual"


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = LedgerFiles(tmp_path, SCHEMA)
    writer.append(lines([1]))
    writer.commit(1)
    monkeypatch.setattr(files, "FORMAT_VERSION", 2)
    with pytest.raises(DataError, match="it has format 1, this version reads 2"):
        read_ledger(tmp_path)

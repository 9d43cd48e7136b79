"""Labeled responses: their formats, and the rows that a loss of labeled responses trains on."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from builders import make_image

from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.columns import RowColumns
from unidpo_mm.data.convert import write_rows
from unidpo_mm.data.detect import formats
from unidpo_mm.data.groups import group_by_prompt, train_on_labels, train_on_responses
from unidpo_mm.data.load import load_rows, read_records, rows_from_records
from unidpo_mm.data.row_codec import decode_row, encode_row
from unidpo_mm.data.row_table import table_of
from unidpo_mm.data.scores import zero_weight_problems
from unidpo_mm.errors import DataError
from unidpo_mm.records import Label, Pair, PreferenceRow, Response

ASK = {"role": "user", "content": "What?"}
REPLY = {"role": "assistant", "content": "yes"}

RECORDS: dict[str, dict[str, Any]] = {
    "labeled": {"prompt": [ASK], "completion": [REPLY], "label": False},
    "alpaca_labeled": {"instruction": "What?", "input": "", "output": "yes", "kto_tag": False},
    "sharegpt_labeled": {
        "conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "yes"}],
        "kto_tag": False,
    },
    "swift_labeled": {"messages": [ASK, REPLY], "label": False},
}
"""The same labeled response in every format."""


def test_every_format_of_labeled_responses_is_tested() -> None:
    assert set(RECORDS) == {name for name in formats() if name.endswith("labeled")}


@pytest.mark.parametrize("name", RECORDS)
def test_every_format_of_labeled_responses(name: str) -> None:
    (row,) = rows_from_records([{**RECORDS[name], "weight": 0.5}])
    (turn,) = row.messages
    assert (turn.role, turn.text) == ("user", "What?")
    assert row.responses == (Response("yes"),)
    assert row.labels == (Label(0, False, 0.5),)
    assert not row.pairs


@pytest.mark.parametrize(
    ("value", "good"),
    [(True, True), (0, False), ("true", True), ("False", False), ("1", True)],
)
def test_values_of_labels(value: Any, good: bool) -> None:
    (row,) = rows_from_records([{"prompt": "What?", "completion": "yes", "label": value}])
    assert row.labels == (Label(0, good),)


@pytest.mark.parametrize("value", ["good", 2, 0.5, 1.0, [True]])
def test_other_values_are_problems(value: Any) -> None:
    record = {"prompt": "What?", "completion": "yes", "label": value}
    with pytest.raises(DataError, match=r"row 1, field 'label': found .*Use true"):
        rows_from_records([record])


def test_a_registry_entry_with_labels(tmp_path: Path) -> None:
    record = {"question": "What?", "answer": "yes", "works": True}
    (tmp_path / "rows.json").write_text(json.dumps([record]))
    columns = {"prompt": "question", "response": "answer", "kto_tag": "works"}
    entry = {"file_name": "rows.json", "columns": columns}
    registry = tmp_path / "dataset_info.json"
    registry.write_text(json.dumps({"mine": entry}))
    (row,) = load_rows([SourceOptions(path=str(registry), subset="mine")])
    assert (row.responses[0].text, row.labels) == ("yes", (Label(0, True),))


def rows() -> list[PreferenceRow]:
    records: list[dict[str, Any]] = [
        {"prompt": "a", "completion": "a1", "label": True},
        {"prompt": "a", "completion": "a2", "label": False, "weight": 2.0},
        {"prompt": "b", "completion": "b1", "label": True},
        {"prompt": "c", "chosen": "c1", "rejected": "c2", "weight": 0.5},
    ]
    return list(rows_from_records(records))


def test_rows_borrow_the_response_of_the_row_before_with_another_prompt() -> None:
    trained = train_on_labels(rows(), mismatched=True)
    assert [row.responses[-1].text for row in trained] == ["c1", "c1", "a2", "b1"]
    assert trained[1].pairs == (Pair(0, 1, 2.0, good=False),)
    assert trained[3].pairs == (Pair(0, 2, 0.5, good=True), Pair(1, 2, 0.5, good=False))


def test_the_same_prompt_with_another_image_is_another_prompt() -> None:
    records = [
        {"prompt": "a", "completion": f"a{n}", "label": True, "images": [make_image(n)]}
        for n in range(3)
    ]
    trained = train_on_labels(rows_from_records(records), mismatched=True)
    assert [row.responses[-1].text for row in trained] == ["a2", "a0", "a1"]


def test_one_prompt_has_no_mismatched_response() -> None:
    with pytest.raises(DataError, match=r"all rows have the same prompt.*loss\.kl: none"):
        train_on_labels(rows()[:2], mismatched=True)
    assert all(len(row.responses) == 1 for row in train_on_labels(rows()[:2], mismatched=False))


def test_joined_rows_keep_all_labels_with_their_names() -> None:
    grouped = group_by_prompt(rows(), max_units=2, labels=True)
    assert [len(row.labels) for row in grouped] == [2, 1, 0]
    trained = train_on_labels(grouped, mismatched=True)
    assert next([pair.row_id for pair in row.pairs] for row in trained) == ["data:1", "data:2"]
    assert [row.responses[-1].text for row in trained] == ["c1", "a1", "b1"]
    assert len(group_by_prompt(rows(), max_units=1, labels=True)) == 4
    ids = [trained[0].pair_id(pair) for pair in trained[0].pairs]
    assert [name.rpartition(":")[2] for name in ids] == ["good", "bad"]


def test_columns_are_those_of_the_rows() -> None:
    for grouped in (table_of(rows()), group_by_prompt(table_of(rows()), max_units=2, labels=True)):
        trained = table_of(train_on_labels(grouped, mismatched=True))
        expected = RowColumns.of(list(trained))
        assert trained.columns.responses.tolist() == expected.responses.tolist()
        assert trained.columns.weights.values.tolist() == expected.weights.values.tolist()
        assert trained.columns.weights.offsets.tolist() == expected.weights.offsets.tolist()
        part = trained.take([len(trained) - 1])
        assert part[0] == trained[len(trained) - 1]


def test_labels_survive_the_row_file_and_count_in_digests() -> None:
    row = rows()[1]
    assert decode_row(encode_row(row)) == row
    other = dataclasses.replace(row, labels=(Label(0, True, 2.0),))
    first, second = (table_of([item]).digests().tobytes() for item in (row, other))
    assert first != second
    trained = train_on_labels(rows(), mismatched=True)
    assert decode_row(encode_row(trained[1])) == trained[1]
    without = train_on_labels(rows(), mismatched=False)
    assert table_of(trained).digests().tobytes() != table_of(without).digests().tobytes()


def test_supervised_fine_tuning_trains_on_good_responses() -> None:
    texts = [[item.text for item in row.responses] for row in train_on_responses(rows())]
    assert texts == [["a1"], ["b1"], ["c1"]]


def test_labeled_rows_are_written_as_trls_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    layouts: tuple[Literal["native", "trl"], ...] = ("native", "trl")
    for layout in layouts:
        assert write_rows(rows()[:3], path, layout) == 3
        again = load_rows([SourceOptions(path=str(path))])
        assert [row.labels for row in again] == [row.labels for row in rows()[:3]]
        assert [row.responses for row in again] == [row.responses for row in rows()[:3]]


def test_an_invalid_index_of_a_label_is_a_problem() -> None:
    with pytest.raises(DataError, match=r"field 'labels'.*refers to response 3"):
        dataclasses.replace(rows()[0], labels=(Label(3, True),))


def test_rows_with_one_prompt_get_a_response_of_other_rows() -> None:
    same, others = rows()[:2], rows()
    trained = train_on_labels(same, mismatched=True, others=others)
    assert [row.responses[-1].text for row in trained] == ["b1", "b1"]
    assert [row.id for row in trained] == ["data:1", "data:2"]


def test_rows_that_have_labels_already_are_kept() -> None:
    trained = list(train_on_labels(rows(), mismatched=True))
    assert list(train_on_labels(trained, mismatched=True)) == trained


def test_sources_that_drop_ties_keep_labels() -> None:
    records = [{"prompt": "a", "completion": "b", "label": True}]
    source = SourceOptions(path="data", scores=ScoreOptions(ties="drop"))
    assert len(read_records(records, source).rows) == 1


def test_a_pair_of_ms_swift_may_have_a_label() -> None:
    record = {"messages": [ASK, REPLY], "rejected_response": "no", "label": 3}
    (row,) = rows_from_records([record])
    assert len(row.pairs) == 1
    assert not row.labels


def test_labels_of_weight_0_train_nothing() -> None:
    records = [{"prompt": "a", "completion": "b", "label": True, "weight": 0}]
    (problem,) = zero_weight_problems(rows_from_records(records))
    assert problem.message == "the weight of the only label is 0, so that nothing would be trained"

"""Tool calls and tool schemas: JSON text is parsed once, explicit nulls are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import read_records, read_sources
from unidpo_mm.records import PreferenceRow

ARGUMENTS = {"city": "X", "unit": None, "days": [1, {"from": None}]}
TEXT = json.dumps(ARGUMENTS)


def record(**fields: Any) -> dict[str, Any]:
    turns = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, **fields},
        {"role": "tool", "content": "20"},
    ]
    return {"prompt": turns, "chosen": "20 C", "rejected": "b"}


def calls(row: PreferenceRow) -> Any:
    return json.loads(row.messages[1].extras)


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "w", "arguments": arguments}}


@pytest.mark.parametrize(
    "written",
    [
        [call(ARGUMENTS)],
        [call(TEXT)],
        json.dumps([call(ARGUMENTS)]),
        json.dumps([call(TEXT)]),
        [json.dumps(call(TEXT))],
    ],
    ids=["objects", "arguments as text", "all as text", "text in text", "each as text"],
)
def test_every_spelling_of_a_call_is_the_same_call(written: Any) -> None:
    (row,) = read_records([record(tool_calls=written)]).rows
    assert calls(row) == {"tool_calls": [call(ARGUMENTS)]}


def test_calls_without_the_function_level_and_older_ones_are_parsed_too() -> None:
    flat = {"name": "w", "arguments": TEXT}
    (row,) = read_records([record(tool_calls=[flat])]).rows
    assert calls(row) == {"tool_calls": [{"name": "w", "arguments": ARGUMENTS}]}
    (row,) = read_records([record(tool_calls=[call("")], function_call=flat)]).rows
    assert calls(row)["tool_calls"] == [call({})]
    assert calls(row)["function_call"] == {"name": "w", "arguments": ARGUMENTS}


@pytest.mark.parametrize(
    ("written", "result"),
    [
        ([call("{city: X}")], "the arguments of a tool call are not valid JSON"),
        ([call("[1]")], "as JSON text"),
        ([call(json.dumps(TEXT))], "as JSON text"),
        ("{", "the tool calls are not valid JSON"),
        ({"function": {}}, "the tool calls are dict"),
        ([3], "the tool calls are list"),
        (["3"], "the tool calls are list"),
        ([call("[" * 100_000)], "nested too deeply"),
    ],
)
def test_a_call_that_cannot_be_read_is_refused(written: Any, result: str) -> None:
    (problem,) = read_records([record(tool_calls=written)]).problems
    assert problem.where == "data set 'data' row 1, field 'prompt'"
    assert result in problem.message


SCHEMA = {"type": "object", "properties": {"unit": {"enum": ["C", None], "default": None}}}
TOOL = {"type": "function", "function": {"name": "w", "parameters": SCHEMA}}


@pytest.mark.parametrize(
    "written",
    [
        [TOOL],
        json.dumps([TOOL]),
        [json.dumps(TOOL)],
        [{"type": "function", "function": {"name": "w", "parameters": json.dumps(SCHEMA)}}],
    ],
)
def test_every_spelling_of_a_tool_is_the_same_tool(written: Any) -> None:
    (row,) = read_records([{**record(), "prompt": "Hi", "tools": written}]).rows
    assert json.loads(row.tools) == [TOOL]


@pytest.mark.parametrize("written", [["{"], [3], ["3"], json.dumps(json.dumps([TOOL])), "3"])
def test_a_tool_that_cannot_be_read_is_refused(written: Any) -> None:
    (problem,) = read_records([{**record(), "prompt": "Hi", "tools": written}]).problems
    assert problem.where.endswith("field 'tools'")


def test_arrow_adds_nulls_that_are_dropped_and_those_in_json_text_stay(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset

    rows = [record(tool_calls=[call({"city": "X"})]), record(tool_calls=[call({"day": 3})])]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    of_file = read_sources([SourceOptions(path=str(tmp_path / "rows.parquet"))]).rows
    of_memory = read_records(Dataset.from_list(rows)).rows
    for result in (of_file, of_memory):
        assert [calls(row)["tool_calls"][0]["function"]["arguments"] for row in result] == [
            {"city": "X"},
            {"day": 3},
        ]
    (row,) = read_records(Dataset.from_list([record(tool_calls=[call(TEXT)])])).rows
    assert calls(row)["tool_calls"][0]["function"]["arguments"] == ARGUMENTS
    spoken = {**record(tool_calls=[call(TEXT)]), "tools": json.dumps([TOOL])}
    (tools,) = read_records(Dataset.from_list([spoken])).rows
    assert json.loads(tools.tools) == [TOOL]


def test_jsonl_keeps_nulls(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**record(tool_calls=[call(ARGUMENTS)]), "tools": [TOOL]}))
    (row,) = read_sources([SourceOptions(path=str(path))]).rows
    assert calls(row) == {"tool_calls": [call(ARGUMENTS)]}
    assert json.loads(row.tools) == [TOOL]

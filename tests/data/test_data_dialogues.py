"""Prompts that hold a response, whole dialogues as responses, and the column `system`."""

from typing import Any

import pytest
from builders import make_image

from unidpo_mm.data.load import read_records
from unidpo_mm.errors import Problem
from unidpo_mm.records import PreferenceRow


def user(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


def parsed(record: dict[str, Any]) -> PreferenceRow:
    loaded = read_records([record])
    assert not loaded.problems, loaded.problems
    return loaded.rows[0]


def problem_of(record: dict[str, Any]) -> Problem:
    (problem,) = read_records([record]).problems
    return problem


def turns(row: PreferenceRow) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in row.messages]


def texts(row: PreferenceRow) -> list[str]:
    return [response.text for response in row.responses]


ONE, TWO = user("One?"), user("Two?")

# ---- a prompt that ends with a response ----


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ONE, assistant("1")], "chosen": "1", "rejected": "2"},
        {"prompt": [ONE, assistant("2")], "chosen": "1", "rejected": "2"},
        {"prompt": [ONE, assistant("1")], "chosen": [ONE, assistant("1")], "rejected": "2"},
        {
            "prompt": [ONE, assistant("1")],
            "chosen": [assistant("1")],
            "rejected": [assistant("2")],
        },
        {
            "conversations": [
                {"from": "human", "value": "One?"},
                {"from": "gpt", "value": "1"},
            ],
            "chosen": {"from": "gpt", "value": "1"},
            "rejected": {"from": "gpt", "value": "2"},
        },
        {
            "prompt": [ONE, assistant("1")],
            "responses": [{"text": "1", "score": 2}, {"text": "2", "score": 1}],
        },
    ],
)
def test_a_last_turn_that_is_a_response_is_that_response(record: dict[str, Any]) -> None:
    row = parsed(record)
    assert turns(row) == [("user", "One?")]
    assert texts(row) == ["1", "2"]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ONE, assistant("Well")], "chosen": "1", "rejected": "2"},
        {"prompt": [ONE, assistant("1 ")], "chosen": "1", "rejected": "2"},
        {
            "prompt": [ONE, assistant("Well")],
            "responses": [{"text": "1", "score": 2}, {"text": "2", "score": 1}],
        },
    ],
)
def test_a_last_assistant_turn_that_is_not_a_response_is_refused(record: dict[str, Any]) -> None:
    problem = problem_of(record)
    assert problem.where.endswith("field 'prompt'")
    assert "ends with an assistant message" in problem.message


# ---- whole dialogues ----

BEFORE = [ONE, assistant("1"), TWO]
LATER = {"chosen": [*BEFORE, assistant("2")], "rejected": [*BEFORE, assistant("3")]}
SPOKEN = [("user", "One?"), ("assistant", "1"), ("user", "Two?")]


@pytest.mark.parametrize("prompt", ["One?", [ONE], BEFORE, [TWO], "Two?", None])
def test_the_turns_that_dialogues_share_are_the_prompt(prompt: Any) -> None:
    row = parsed(LATER if prompt is None else {**LATER, "prompt": prompt})
    assert turns(row) == SPOKEN
    assert texts(row) == ["2", "3"]


def test_a_system_turn_of_dialogues_belongs_to_the_prompt() -> None:
    both = {
        "prompt": "One?",
        "chosen": [system("Be brief."), ONE, assistant("1")],
        "rejected": [system("Be brief."), ONE, assistant("2")],
    }
    assert turns(parsed(both)) == [("system", "Be brief."), ("user", "One?")]


def test_images_of_shared_turns_are_kept() -> None:
    image_turn = user(
        [{"type": "image", "image": make_image(1)}, {"type": "text", "text": "And now?"}]
    )
    before = [ONE, assistant("1"), image_turn]
    row = parsed(
        {
            "prompt": "One?",
            "chosen": [*before, assistant("2")],
            "rejected": [*before, assistant("3")],
        }
    )
    assert [message.slots("image") for message in row.messages] == [0, 0, 1]
    assert row.images[0].open().size == make_image().size


@pytest.mark.parametrize("prompt", ["One?", None])
def test_dialogues_that_differ_before_their_last_turn_are_refused(prompt: Any) -> None:
    record = {
        "chosen": [ONE, assistant("1"), TWO, assistant("2")],
        "rejected": [ONE, assistant("0"), TWO, assistant("3")],
    }
    problems = read_records([record if prompt is None else {**record, "prompt": prompt}]).problems
    assert [problem.where.rpartition(" ")[2] for problem in problems] == ["'chosen'", "'rejected'"]
    for problem in problems:
        assert problem.message == (
            "3 messages follow the prompt (assistant, user, assistant), expected a single one"
        )
        assert "first assistant message that differs" in problem.remedy


@pytest.mark.parametrize("prompt", ["One?", None])
def test_dialogues_whose_users_differ_are_refused(prompt: Any) -> None:
    record = {
        "chosen": [ONE, assistant("1"), TWO, assistant("2")],
        "rejected": [ONE, assistant("1"), user("Three?"), assistant("2")],
    }
    problems = read_records([record if prompt is None else {**record, "prompt": prompt}]).problems
    assert [problem.where.rpartition(" ")[2] for problem in problems] == ["'chosen'", "'rejected'"]
    assert all("2 messages follow the prompt (user, assistant)" in p.message for p in problems)


# ---- the column `system` ----

RECORDS = [
    {"prompt": "One?", "chosen": "1", "rejected": "2"},
    {"prompt": [ONE], "chosen": "1", "rejected": "2"},
    {"question": "One?", "chosen": "1", "rejected": "2"},
    {"prompt": "One?", "responses": [{"text": "1", "score": 2}, {"text": "2", "score": 1}]},
    {"chosen": [ONE, assistant("1")], "rejected": [ONE, assistant("2")]},
    {"messages": [ONE, assistant("1")], "rejected_response": "2"},
    {"instruction": "One?", "chosen": "1", "rejected": "2"},
    {"conversations": [{"from": "human", "value": "One?"}], "chosen": {"from": "gpt", "value": "1"},
     "rejected": {"from": "gpt", "value": "2"}},
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_a_system_column_is_the_first_message_in_every_format(record: dict[str, Any]) -> None:
    row = parsed({**record, "system": "Be brief."})
    assert turns(row) == [("system", "Be brief."), ("user", "One?")]
    assert texts(row) == ["1", "2"]
    assert not row.raw
    assert turns(parsed({**record, "system": ""})) == [("user", "One?")]


def test_two_system_messages_are_refused_unless_they_are_equal() -> None:
    record = {"prompt": [system("Be brief."), ONE], "chosen": "1", "rejected": "2"}
    assert len(parsed({**record, "system": "Be brief."}).messages) == 2
    problem = problem_of({**record, "system": "Be long."})
    assert problem.where.endswith("field 'system'")
    assert "another system message" in problem.message
    assert problem_of({**record, "system": 5}).where.endswith("field 'system'")

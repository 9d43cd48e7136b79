"""Records of every layout become the rows they mean; every problem is reported with its field."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from PIL import Image

from unidpo_mm.config import SourceOptions
from unidpo_mm.data.load import ReadOptions, read_records, rows_from_records
from unidpo_mm.errors import DataError
from unidpo_mm.records import MediaSlot, Message, Pair, PreferenceRow, Response

SLOT = MediaSlot("image")
PAIR: dict[str, Any] = {"prompt": "What?", "chosen": "yes", "rejected": "no"}
SCORED = {**PAIR, "score_chosen": 4, "score_rejected": 1.5}

SCORED_LOSS = ReadOptions(needs_scores=lambda source: True)


def parsed(record: dict[str, Any]) -> PreferenceRow:
    (row,) = rows_from_records([record])
    return row


def problems_of(*records: Any) -> list[tuple[str, str, str]]:
    with pytest.raises(DataError) as error:
        rows_from_records(list(records))
    return [(p.where, p.message, p.remedy) for p in error.value.problems]


# ---- pairs ----


def test_a_plain_pair() -> None:
    row = parsed({**SCORED, "weight": 0.5, "id": 7, "domain": "math"})
    assert row.messages == (Message("user", ("What?",)),)
    assert row.responses == (Response("yes", 4.0), Response("no", 1.5))
    assert row.pairs == (Pair(0, 1, 0.5),)
    assert (row.id, row.domain, row.raw) == ("7", "math", True)


def test_a_row_without_id_domain_scores_and_weight() -> None:
    row = parsed(PAIR)
    assert (row.id, row.domain, row.source) == ("data:1", "text", "data")
    assert [r.score for r in row.responses] == [None, None]
    assert row.pairs == (Pair(0, 1, 1.0),)
    assert row.where == "data set 'data' row 1"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}
CONVERSATIONAL = {
    "answers alone": ([user("What?")], [assistant("yes")], [assistant("no")]),
    "answers as strings": ([user("What?")], "yes", "no"),
    "prompt repeated": (
        [user("What?")],
        [user("What?"), assistant("yes")],
        [user("What?"), assistant("no")],
    ),
    "parts": (
        [user([{"type": "text", "text": "What?"}])],
        [assistant([{"type": "text", "text": "yes"}])],
        [assistant([{"type": "text", "text": "no"}])],
    ),
}


@pytest.mark.parametrize("name", CONVERSATIONAL)
def test_conversations_in_all_spellings_mean_the_same(name: str) -> None:
    prompt, chosen, rejected = CONVERSATIONAL[name]
    row = parsed({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert row.messages == (Message("user", ("What?",)),)
    assert [r.text for r in row.responses] == ["yes", "no"]
    assert not row.raw


@pytest.mark.parametrize("repeated", [0, 1, 2, 4])
def test_any_tail_of_the_prompt_may_be_repeated_before_the_response(repeated: int) -> None:
    prompt = [SYSTEM, user("One?"), assistant("1"), user("Two?")]
    before = prompt[len(prompt) - repeated :]
    row = parsed(
        {
            "prompt": prompt,
            "chosen": [*before, assistant("yes")],
            "rejected": [*before, assistant("no")],
        }
    )
    assert [m.role for m in row.messages] == ["system", "user", "assistant", "user"]
    assert [r.text for r in row.responses] == ["yes", "no"]


def test_a_plain_prompt_may_be_repeated_in_conversational_responses() -> None:
    row = parsed({**PAIR, "chosen": [user("What?"), assistant("yes")], "rejected": "no"})
    assert [r.text for r in row.responses] == ["yes", "no"]


@pytest.mark.parametrize(
    "turns",
    [
        [user("Something else"), assistant("yes")],
        [assistant("yes"), user("What?")],
        [user("What?")],
        [SYSTEM, user("What?"), assistant("yes")],
    ],
)
def test_a_response_that_is_another_conversation_is_refused(turns: Any) -> None:
    ((where, result, remedy),) = problems_of({**PAIR, "chosen": turns})
    assert where == "data set 'data' row 1, field 'chosen'"
    assert result.startswith("found messages of")
    assert "the prompt followed by it" in remedy


# ---- images ----


def test_placeholders_keep_their_positions() -> None:
    row = parsed({**PAIR, "prompt": "<image>\nCompare <image> now", "images": [make_image(1)] * 2})
    assert row.messages == (Message("user", (SLOT, "Compare ", SLOT, " now")),)
    assert row.domain == "multimodal"


def test_slots_are_put_in_front_of_the_first_question_where_there_are_none() -> None:
    prompt = [SYSTEM, user("What?"), assistant("It?"), user("That.")]
    row = parsed({**PAIR, "prompt": prompt, "images": [make_image(1), make_image(2)]})
    assert [m.slots("image") for m in row.messages] == [0, 2, 0, 0]
    assert row.messages[1].parts == (SLOT, SLOT, "What?")


def test_image_parts_of_a_conversation_are_slots() -> None:
    content = [{"type": "text", "text": "Look: "}, {"type": "image"}]
    row = parsed({**PAIR, "prompt": [user(content)], "images": [make_image(1)]})
    assert row.messages[0].parts == ("Look: ", SLOT)


def test_null_keys_added_by_arrow_are_ignored() -> None:
    content = [
        {"type": "image", "text": None},
        {"type": "text", "text": "What?", "index": None},
    ]
    record = {
        "prompt": [{**user(content), "name": None}],
        "chosen": [{**assistant("yes"), "name": None}],
        "rejected": [{**assistant("no"), "name": None}],
        "images": [make_image(1)],
        "image": None,
        "responses": None,
        "score_chosen": None,
        "weight": None,
        "id": None,
        "domain": None,
    }
    row = parsed(record)
    assert row.messages == (Message("user", (SLOT, "What?")),)
    assert row.responses[0].score is None


def as_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("column", ["image", "images"])
@pytest.mark.parametrize("kind", ["PIL", "bytes", "dict of bytes", "dict of path", "path"])
def test_images_come_in_every_form(tmp_path: Path, kind: str, column: str) -> None:
    image = make_image(3)
    image.save(tmp_path / "p.png")
    value: Any = {
        "PIL": image,
        "bytes": as_bytes(image),
        "dict of bytes": {"bytes": as_bytes(image), "path": None},
        "dict of path": {"bytes": None, "path": str(tmp_path / "p.png")},
        "path": str(tmp_path / "p.png"),
    }[kind]
    row = parsed({**PAIR, column: value if column == "image" else [value]})
    assert row.images[0].open().tobytes() == image.tobytes()
    assert row.images[0].open().mode == "RGB"
    assert row.messages[0].slots("image") == 1


def test_paths_are_relative_to_the_folder_of_the_images(tmp_path: Path) -> None:
    make_image(1).save(tmp_path / "p.png")
    (row,) = rows_from_records([{**PAIR, "image": "p.png"}], images=tmp_path)
    assert row.images[0].open().size == (40, 30)


@pytest.mark.parametrize(
    ("record", "where", "result"),
    [
        (
            {"images": [make_image(1)], "prompt": "a <image> b <image>"},
            "images",
            "1 image(s) for 2",
        ),
        ({"images": [make_image(1)] * 2, "prompt": "a <image>"}, "images", "2 image(s) for 1"),
        ({"prompt": "a <image>"}, "images", "0 image(s) for 1 image placeholder(s)"),
        ({"image": "https://x.org/p.png"}, "image", "the image is a URL (https://x.org"),
        ({"images": ["http://x.org/p.png"]}, "images", "the image is a URL"),
        ({"images": [3]}, "images", "an image is int ('3')"),
        ({"images": [{"file": "p.png"}]}, "images", "an image is dict"),
        ({"rejected_images": [make_image(1)]}, "rejected_images", "1 other image(s) for 0"),
    ],
)
def test_wrong_images_are_refused(record: dict[str, Any], where: str, result: str) -> None:
    ((place, text, remedy),) = problems_of({**PAIR, **record})
    assert place == f"data set 'data' row 1, field '{where}'"
    assert result in text
    assert remedy


# ---- ranked ----


def test_ranked_responses_form_all_pairs_with_different_scores() -> None:
    scores = [3, 5, 3, 1]
    answers = [{"text": f"answer {n}", "score": s} for n, s in enumerate(scores)]
    row = parsed({"prompt": "What?", "responses": answers})
    assert set(row.pairs) == {Pair(1, 0), Pair(1, 2), Pair(1, 3), Pair(0, 3), Pair(2, 3)}
    assert [r.score for r in row.responses] == [3.0, 5.0, 3.0, 1.0]


def test_a_single_response_has_no_pair() -> None:
    row = parsed({"prompt": "What?", "responses": [{"text": "yes"}]})
    assert row.pairs == ()
    assert row.responses == (Response("yes", None),)


@pytest.mark.parametrize(
    ("responses", "field", "result"),
    [
        ([], "responses", "expected a list of responses"),
        ("yes", "responses", "expected a list of responses"),
        ([{"text": "a", "score": 1}, {"text": "b"}], "responses", "1 of 2 responses have no score"),
        ([{"text": "a", "score": math.nan}], "responses[0].score", "found nan"),
        ([{"answer": "a", "score": 1}], "responses[0].text", "answer"),
        (
            [{"text": "a", "score": 1}, {"text": " ", "score": 2}],
            "responses[1]",
            "response is empty",
        ),
    ],
)
def test_wrong_ranked_responses_are_refused(responses: Any, field: str, result: str) -> None:
    (place, text, _), *_ = problems_of({"prompt": "What?", "responses": responses})
    assert place == f"data set 'data' row 1, field '{field}'"
    assert result in text


# ---- mistakes ----

NAN = math.nan


@pytest.mark.parametrize(
    ("record", "field", "result"),
    [
        ({"chosen": "  "}, "chosen", "the response is empty"),
        ({"rejected": ""}, "rejected", "the response is empty"),
        ({"rejected": "yes"}, "chosen", "chosen and rejected are the same response ('yes')"),
        ({"prompt": " "}, "prompt", "the prompt is empty"),
        ({"prompt": 5}, "prompt", "found int ('5')"),
        ({"prompt": []}, "prompt", "found list"),
        ({"prompt": ["What?"]}, "prompt", "a message is str"),
        ({"prompt": [{"role": "bot", "content": "x"}]}, "prompt", "the role 'bot'"),
        ({"prompt": [{"role": "user", "content": None}]}, "prompt", "content is nothing"),
        ({"prompt": [user([{"type": "audio"}])]}, "prompt", "a part of a message is"),
        ({"chosen": 3}, "chosen", "found int"),
        ({"chosen": [assistant([{"type": "image"}])]}, "chosen", "contains an image placeholder"),
        ({"score_chosen": NAN}, "score_chosen", "found nan"),
        ({"score_rejected": math.inf}, "score_rejected", "found inf"),
        ({"score_chosen": "4"}, "score_chosen", "found '4'"),
        ({"score_chosen": True}, "score_chosen", "found True"),
        ({"weight": -1.0}, "weight", "the weight of a pair is -1.0"),
        ({"domain": "maths"}, "domain", "the domain is 'maths'"),
    ],
)
def test_a_wrong_field_is_reported_with_its_value(
    record: dict[str, Any], field: str, result: str
) -> None:
    problems = problems_of({**SCORED, **record})
    place, text, remedy = problems[0]
    assert place == f"data set 'data' row 1, field '{field}'"
    assert result in text
    assert remedy


def test_all_mistakes_of_all_rows_are_reported_together() -> None:
    problems = problems_of(
        SCORED,
        {**SCORED, "prompt": 5, "chosen": 6, "score_chosen": NAN, "weight": "x", "domain": "y"},
        {**SCORED, "rejected": ""},
        "no object",
        {"prompt": "x"},
    )
    assert [place for place, _, _ in problems] == [
        *(
            f"data set 'data' row 2, field '{name}'"
            for name in ("prompt", "chosen", "score_chosen", "weight", "domain")
        ),
        "data set 'data' row 3, field 'rejected'",
        "data set 'data' row 4",
        "data set 'data' row 5, field 'responses'",
    ]


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        ({"prompt": "", "score_chosen": "x"}, {"prompt", "score_chosen"}),
        ({"rejected": "yes", "score_rejected": None}, {"chosen", "score_rejected"}),
        ({"prompt": 5, "chosen": " ", "images": ["no.png"]}, {"prompt", "chosen", "images"}),
        ({"prompt": "a <image>", "chosen": "", "weight": -1}, {"images", "chosen", "weight"}),
        ({"chosen": 5, "rejected": ""}, {"chosen", "rejected"}),
    ],
)
def test_all_mistakes_of_one_row_are_reported_together(
    changed: dict[str, Any], fields: set[str], tmp_path: Path
) -> None:
    """Problems of fields, scores and images are reported together, without false ones."""
    source = SourceOptions(path="data", images=str(tmp_path))
    problems = read_records([{**SCORED, **changed}], source, SCORED_LOSS).problems
    assert {p.where.split("'")[-2] for p in problems} == fields
    assert len(problems) == len(fields)


def test_all_problems_of_a_ranked_row_are_reported_together() -> None:
    answers = [{"text": "", "score": 1}, {"text": 5, "score": "x"}, {"text": "c"}, {"text": "c"}]
    source = SourceOptions(path="data")
    problems = read_records([{"prompt": "", "responses": answers}], source, SCORED_LOSS).problems
    assert [p.where.split("'")[-2] for p in problems] == [
        "prompt",
        "responses[1].text",
        "responses[1].score",
        "responses",  # two without a score
        "responses[0]",
    ]


def test_columns_that_fit_no_format_are_listed_with_what_is_missing() -> None:
    ((place, result, remedy),) = problems_of({"prompt": "x", "chosen": "y", "rejected": None})
    assert place == "data set 'data' row 1, field 'rejected'"
    assert "the columns chosen, prompt fit no format; rejected is missing for 'pairs'" in result
    assert "pairs: chosen, prompt, rejected" in remedy
    assert "columns: {prompt: question}" in remedy


def test_the_same_id_twice_is_refused_and_names_both_rows() -> None:
    ((place, result, _),) = problems_of({**PAIR, "id": "a"}, PAIR, {**PAIR, "id": "a"})
    assert place == "data set 'data' row 3, field 'id'"
    assert result == "duplicate id 'a', also used by data set 'data' row 1"


def test_rows_that_are_ready_are_taken_as_they_are() -> None:
    ready = parsed({**PAIR, "id": "own"})
    assert rows_from_records([ready, PAIR])[0] is ready

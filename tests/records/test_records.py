"""Each record checks its own invariants and says which row broke one."""

import dataclasses
import functools
import math
import pickle
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from builders import make_image

from unidpo_mm.data.collate import collate
from unidpo_mm.data.groups import group_by_prompt, join_single_responses
from unidpo_mm.data.scores import form_pairs
from unidpo_mm.errors import DataError, Problem, RecipeError
from unidpo_mm.records import (
    EncodedGroup,
    GroupBatch,
    Label,
    LossOutput,
    Media,
    MediaSlot,
    Message,
    ModelInputs,
    Pair,
    PairLogps,
    PreferenceRow,
    Preferences,
    Response,
    RowInfo,
    SequenceLogps,
    Targets,
    Units,
)


class Image:
    def open(self) -> Any:
        return make_image(0)

    def describe(self) -> str:
        return "an image"

    def key(self) -> str:
        return "key"


def make_row(**changed: Any) -> PreferenceRow:
    fields: dict[str, Any] = {
        "id": "r7",
        "domain": "text",
        "source": "s",
        "where": "rows.jsonl row 7",
        "messages": (Message("user", ("What?",)),),
        "responses": (Response("yes", 4.0), Response("no", 1.0)),
        "pairs": (Pair(0, 1),),
        **changed,
    }
    return PreferenceRow(**fields)


# ---- rows ----

THREE = (Response("a", 1.0), Response("", 2.0), Response("c", math.inf))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"messages": ()}, [("prompt", "the prompt is empty")]),
        ({"messages": (Message("user", (" ",)),)}, [("prompt", "the prompt is empty")]),
        ({"messages": (Message("bot", ("x",)),)}, [("prompt", "a message has the role 'bot'")]),
        (
            {"messages": (Message("user", (MediaSlot("video"), "x")),)},
            [("videos", "0 video(s) for 1 video placeholder(s)")],
        ),
        (
            {"messages": (Message("user", (MediaSlot("image"), "x")),)},
            [("images", "0 image(s) for 1 image placeholder(s)")],
        ),
        ({"images": (Image(),)}, [("images", "1 image(s) for 0 image placeholder(s)")]),
        ({"responses": (), "pairs": ()}, [("responses", "there is no response")]),
        (
            {"responses": (Response("yes"), Response(" \n"))},
            [("rejected", "the response is empty")],
        ),
        (
            {"responses": (Response("yes", math.nan), Response("no", -math.inf))},
            [("score_chosen", "the score is nan"), ("score_rejected", "the score is -inf")],
        ),
        (
            {"responses": THREE, "pairs": (Pair(0, 2),)},
            [("responses[1]", "the response is empty"), ("responses[2].score", "the score is inf")],
        ),
        (
            {"responses": (Response("no"), Response("")), "pairs": (Pair(1, 0),)},
            [("chosen", "the response is empty")],
        ),
        ({"pairs": (Pair(0, 2),)}, [("pairs", "a pair refers to responses 0 and 2")]),
        ({"pairs": (Pair(-1, 0),)}, [("pairs", "a pair refers to responses -1 and 0")]),
        (
            {"responses": (Response("same"), Response("same"))},
            [("chosen", "chosen and rejected are the same response ('same')")],
        ),
        ({"pairs": (Pair(0, 0),)}, [("chosen", "are the same response")]),
        ({"pairs": (Pair(0, 1, -0.5),)}, [("weight", "the weight of a pair is -0.5")]),
        ({"pairs": (Pair(0, 1, math.nan),)}, [("weight", "the weight of a pair is nan")]),
    ],
)
def test_a_row_that_breaks_an_invariant_is_refused_with_its_fields(
    changed: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    with pytest.raises(DataError) as error:
        make_row(**changed)
    problems = error.value.problems
    assert [p.where for p in problems] == [
        f"rows.jsonl row 7, field '{name}'" for name, _ in expected
    ]
    for problem, (_, result) in zip(problems, expected, strict=True):
        assert result in problem.message
        assert problem.remedy


def test_all_problems_of_a_row_are_reported_together() -> None:
    with pytest.raises(DataError) as error:
        make_row(
            messages=(Message("bot", ("x", MediaSlot("image"))),),
            responses=(Response("", math.nan), Response("b")),
            pairs=(Pair(0, 1, -1.0),),
        )
    assert len(error.value.problems) == 5
    assert str(error.value).startswith(
        "the data cannot be used (5 problems):\n  - rows.jsonl row 7"
    )


def test_a_long_response_is_shortened_in_its_message() -> None:
    with pytest.raises(DataError) as error:
        make_row(responses=(Response("x" * 500), Response("x" * 500)))
    assert len(error.value.problems[0].message) < 120


def test_a_prompt_may_be_only_an_image() -> None:
    row = make_row(messages=(Message("user", (MediaSlot("image"),)),), images=(Image(),))
    assert row.messages[0].slots("image") == 1
    assert row.messages[0].text == ""


def test_missing_scores_are_reported_for_responses_in_pairs_only() -> None:
    answers = (Response("a", None), Response("b", 1.0), Response("c", None))
    row = make_row(responses=answers, pairs=(Pair(1, 2),))
    assert [p.where for p in row.missing_scores()] == [
        "rows.jsonl row 7, field 'responses[2].score'"
    ]
    pair = make_row(responses=(Response("a", 1.0), Response("b", None)))
    assert [p.where for p in pair.missing_scores()] == ["rows.jsonl row 7, field 'score_rejected'"]
    assert make_row().missing_scores() == []


@pytest.mark.parametrize(
    ("pairs", "scores", "targets"),
    [
        ((Pair(0, 1),), (1, 2, 3), (0,)),
        ((Pair(2, 1), Pair(2, 0), Pair(1, 0)), (1, 2, 3), (1, 2)),  # each chosen answer once
        ((Pair(2, 1, 0.0), Pair(1, 0)), (1, 2, 3), (1,)),  # a pair of weight 0 teaches nothing
        ((), (1, 3, 2), (1,)),
        ((), (None, -1, None), (1,)),
        ((), (None, None, None), (0,)),
    ],
)
def test_targets_are_the_chosen_responses(
    pairs: Any, scores: Any, targets: tuple[int, ...]
) -> None:
    answers = tuple(Response(text, score) for text, score in zip("abc", scores, strict=True))
    row = make_row(responses=answers, pairs=pairs)
    assert row.targets() == targets
    alone = row.for_responses()
    assert alone.responses == tuple(answers[number] for number in targets)
    assert alone.pairs == ()


def test_responses_that_are_not_used_can_be_left_out() -> None:
    answers = tuple(Response(text, float(score)) for score, text in enumerate("abcde"))
    pairs = (Pair(4, 1, 0.5, "x"), Pair(3, 1))
    row = make_row(responses=answers, pairs=pairs, labels=(Label(3, good=True),))
    used = row.without_unused()
    assert used.responses == (answers[1], answers[3], answers[4])
    assert used.pairs == (Pair(2, 0, 0.5), Pair(1, 0))
    assert used.pairs[0].row_id == "x"
    assert used.labels == (Label(1, good=True),)
    assert list(map(used.pair_id, used.pairs)) == list(map(row.pair_id, row.pairs))
    single = make_row(responses=answers, pairs=(Pair(4, 1),)).without_unused()
    assert [single.response_field(n) for n in (0, 1)] == ["responses[1]", "responses[4]"]
    for unchanged in (used, make_row(), make_row(responses=answers, pairs=())):
        assert unchanged.without_unused() is unchanged


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_row().id = "other"


# ---- groups ----


def make_group(**changed: Any) -> EncodedGroup:
    fields: dict[str, Any] = {
        "row": RowInfo(id="r7", domain="text", source="s", where="rows.jsonl row 7"),
        "prompt_ids": torch.tensor([5, 5, 1]),
        "response_ids": (torch.tensor([2, 3]), torch.tensor([4])),
        "preferences": Preferences(
            scores=torch.tensor([4.0, 1.0], dtype=torch.float64),
            pairs=(Pair(0, 1),),
            pair_ids=("r7:a:b",),
            response_units=(0,),
            response_unit_ids=("r7:a",),
        ),
        **changed,
    }
    return EncodedGroup(**fields)


EMPTY = torch.tensor([], dtype=torch.int64)


@pytest.mark.parametrize(
    ("changed", "result"),
    [
        ({"prompt_ids": EMPTY}, "the prompt has no token"),
        ({"response_ids": (torch.tensor([2]), EMPTY)}, "response 1 has no token"),
        (
            {"token_extras": {"types": (torch.zeros(3), torch.zeros(2), torch.zeros(2))}},
            "'types' has lengths [3, 2, 2], the ids [3, 2, 1]",
        ),
        (
            {"token_extras": {"types": (torch.zeros(3), torch.zeros(2))}},
            "'types' has lengths [3, 2], the ids [3, 2, 1]",
        ),
        (
            {"media": {"image": Media(token_id=5, tokens=3)}},
            "2 image tokens for 3 image features",
        ),
        ({"media": {"video": Media(token_id=5, tokens=3)}}, "2 video tokens for 3 video features"),
        ({"media": {"image": Media(token_id=5)}}, "2 image tokens for 0 image features"),
        ({"media": {"image": Media(token_id=3)}}, "a response contains image tokens"),
    ],
)
def test_a_group_that_breaks_an_invariant_names_row_and_id(
    changed: dict[str, Any], result: str
) -> None:
    with pytest.raises(DataError) as error:
        make_group(**changed)
    (problem,) = error.value.problems
    assert problem.where == "rows.jsonl row 7 (id r7)"
    assert problem.message == result
    assert problem.remedy


def test_tokens_counts_the_prompt_once_for_every_response() -> None:
    assert make_group().tokens == 3 + 2 + 3 + 1


# ---- batches ----


def make_batch() -> GroupBatch:
    return collate([make_group()], pad_token_id=0)


def test_targets_that_do_not_cover_a_response_are_refused_with_its_row() -> None:
    targets = make_batch().targets
    with pytest.raises(
        DataError, match="batch with rows r7, r7: targets do not cover the responses"
    ):
        dataclasses.replace(targets, response=targets.response.clone().fill_(0))
    with pytest.raises(DataError, match="targets do not cover"):
        dataclasses.replace(targets, lengths=targets.lengths + 1)


def test_tensors_that_are_padded_differently_are_refused() -> None:
    inputs = make_batch().inputs
    wrong = {**inputs.tokens, "types": torch.zeros(2, 3)}
    with pytest.raises(DataError, match=r"'types' has shape \(2, 3\), but the ids have \(2, 5\)"):
        dataclasses.replace(inputs, tokens=wrong)
    with pytest.raises(DataError, match="'segment' has shape"):
        dataclasses.replace(inputs, segment=inputs.segment[:, 1:])


def test_units_with_missing_entries_are_refused() -> None:
    pairs = make_batch().pairs
    with pytest.raises(ValueError, match=r"different numbers of entries.*'weight': 0"):
        dataclasses.replace(pairs, weight=pairs.weight[:0])


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values of a record and of the records in it, by their path."""
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, dict):
        return {name: value}
    parts = [leaves(item, f"{name}.{key}") for key, item in value.items()]
    return {path: leaf for part in parts for path, leaf in part.items()}


def with_image() -> EncodedGroup:
    images = Media(inputs={"pixel_values": torch.ones(1, 2)}, entries=1, tokens=2, token_id=5)
    return make_group(media={"image": images})


def test_a_batch_moves_with_every_tensor_and_keeps_the_rest() -> None:
    batch = collate([with_image()], pad_token_id=0, media_once=True, keyed=True)
    moved = batch.to("meta")
    assert type(moved) is GroupBatch
    before, after = leaves(batch), leaves(moved)
    assert before.keys() == after.keys()
    for path, value in before.items():
        if isinstance(value, torch.Tensor):
            assert after[path].device.type == "meta", path
            assert (after[path].shape, after[path].dtype) == (value.shape, value.dtype)
        else:
            assert after[path] == value


def test_a_batch_checks_itself_when_it_is_built_and_never_when_it_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks: list[str] = []
    for record in (ModelInputs, Targets, Units):

        def counting(self: Any, check: Any = record.__post_init__) -> None:
            checks.append(type(self).__name__)
            check(self)

        monkeypatch.setattr(record, "__post_init__", counting)
    batch = make_batch()
    assert sorted(checks) == ["ModelInputs", "Targets", "Units", "Units"]
    # tensors on the device "meta" have no values, so a check of values would raise an error
    batch.to("meta").to("meta")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    pinned = batch.pin_memory()
    pickle.loads(pickle.dumps(pinned))
    assert len(checks) == 4
    with pytest.raises(DataError, match="targets do not cover"):  # the counted check still works
        dataclasses.replace(batch.targets, lengths=batch.targets.lengths + 1)
    assert len(checks) == 5


def test_units_of_a_batch_are_its_pairs_or_its_responses() -> None:
    batch = make_batch()
    assert batch.units("pair") is batch.pairs
    assert batch.units("response") is batch.responses
    assert batch.units("pair").domains == ("text",)
    assert (len(batch.pairs), len(batch.scores)) == (1, 2)


@pytest.mark.parametrize("record", [EncodedGroup, GroupBatch, ModelInputs, Targets, Units, Media])
def test_records_of_groups_and_batches_stay_small(record: Any) -> None:
    assert len(dataclasses.fields(record)) <= 10


# ---- log-probabilities ----


def test_a_response_without_tokens_is_refused_by_its_row() -> None:
    with pytest.raises(DataError, match="row r2: a response has no token"):
        SequenceLogps(torch.zeros(2), torch.tensor([3.0, 0.0]), ("r1", "r2"))
    with pytest.raises(DataError, match="row 1: a response has no token"):
        SequenceLogps(torch.zeros(2), torch.tensor([3.0, 0.0]))


def test_sums_and_lengths_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sums \(2,\), lengths \(3,\)"):
        SequenceLogps(torch.zeros(2), torch.ones(3))


def test_selecting_keeps_sums_and_lengths_together() -> None:
    logps = SequenceLogps(torch.tensor([-2.0, -6.0]), torch.tensor([1.0, 3.0]), ("a", "b"))
    result = logps.select(torch.tensor([1, 0, 1]))
    assert result.sum.tolist() == [-6, -2, -6]
    assert result.mean.tolist() == [-2, -2, -2]
    assert result.row_ids == ()  # looking them up would wait for a GPU


def test_log_probs_on_two_devices_are_refused() -> None:
    here, there = (SequenceLogps(torch.ones(1, device=d), torch.ones(1)) for d in ("cpu", "meta"))
    scores = torch.ones(1)
    with pytest.raises(ValueError, match="are on"):
        PairLogps(
            policy_chosen=here,
            policy_rejected=there,
            score_chosen=scores,
            score_rejected=scores,
            weight=scores,
        )


def test_per_pair_is_per_unit() -> None:
    output = LossOutput(per_unit=torch.ones(3))
    assert output.per_pair is output.per_unit


# ---- errors ----


def test_a_problem_is_printed_as_place_message_and_remedy() -> None:
    assert str(Problem("here", "it is wrong", "Repair it")) == "here: it is wrong. Repair it."
    assert (
        str(Problem("here", "did you mean 'x'?", "Write x")) == "here: did you mean 'x'? Write x."
    )


def test_many_problems_are_cut_in_print_and_kept_in_the_error() -> None:
    error = RecipeError(Problem(str(n), "wrong", "Repair it") for n in range(60))
    assert len(error.problems) == 60
    assert "... and 10 more" in str(error)


# ---- ids of pairs ----


def pair_ids(rows: Iterable[PreferenceRow]) -> list[str]:
    return [row.pair_id(pair) for row in rows for pair in row.pairs]


def test_pair_ids_are_stable_if_rows_are_joined_or_reordered() -> None:
    rows = [
        make_row(id=name, responses=(Response("yes", 2.0), Response(text, 1.0)))
        for name, text in (("a", "no"), ("b", "never"), ("c", "no"), ("d", "maybe"), ("e", "nope"))
    ]
    ids = pair_ids(rows)
    assert len(set(ids)) == len(rows)
    joined = group_by_prompt(rows, max_units=8)
    assert len(joined) == 1
    assert pair_ids(joined) == ids
    assert pair_ids(group_by_prompt(joined, max_units=8)) == ids
    assert set(pair_ids(group_by_prompt(rows[::-1], max_units=8))) == set(ids)
    assert set(pair_ids(group_by_prompt(rows, max_units=2))) == set(ids)


def test_pair_ids_are_stable_if_responses_are_added_or_reordered() -> None:
    row = make_row(responses=(Response("yes", 2.0), Response("no", 1.0)))
    (pair_id,) = pair_ids([row])
    longer = dataclasses.replace(
        row,
        responses=(Response("maybe", 0.0), Response("no", 5.0), Response("yes", 7.0)),
        pairs=(Pair(2, 1, 0.5), Pair(2, 0)),
    )
    assert pair_ids([longer])[0] == pair_id
    assert pair_ids([longer])[1] != pair_id
    assert row.pair_id(Pair(1, 0)) != pair_id
    assert dataclasses.replace(row, id="other").pair_id(row.pairs[0]) != pair_id


def test_pair_ids_of_single_responses_name_the_rows_of_both() -> None:
    def ids(*names: str) -> set[str]:
        scores = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}
        rows = [
            make_row(id=name, responses=(Response(name, scores[name]),), pairs=()) for name in names
        ]
        pairing = functools.partial(form_pairs, rule="all")
        return set(pair_ids(join_single_responses(rows, pairing, [])))

    assert ids("b", "a") == ids("a", "b")
    assert ids("a", "b") < ids("d", "c", "b", "a")
    assert len(ids("a", "b", "c", "d")) == 6

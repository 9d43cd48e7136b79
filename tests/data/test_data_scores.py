"""Pairs of scored responses, mis-ordered and tied pairs, and the reports about them."""

from typing import Any

import pytest
from builders import row

from unidpo_mm.config import ScoreOptions, SourceOptions
from unidpo_mm.data.load import ReadOptions, read_records
from unidpo_mm.data.scores import PairCounts, form_pairs, select_pairs
from unidpo_mm.errors import DataError
from unidpo_mm.records import Pair, Response

SCORES = (3.0, 5.0, 3.0, 1.0, None)
ANSWERS = [Response(f"answer {n}", score) for n, score in enumerate(SCORES)]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ("all", {(1, 0), (1, 2), (1, 3), (0, 3), (2, 3)}),
        ("best_vs_worst", {(1, 3)}),
        ("adjacent", {(1, 0), (2, 3)}),  # 0 and 2 tie, so nothing stands between them
    ],
)
def test_pairs_of_scored_responses_follow_the_option(pairs: Any, expected: Any) -> None:
    result = form_pairs(ANSWERS, pairs)
    assert set(result) == expected
    assert len(result) == len(expected)


@pytest.mark.parametrize("pairs", ["all", "best_vs_worst", "adjacent"])
def test_equal_scores_and_missing_responses_form_no_pair(pairs: Any) -> None:
    assert form_pairs([Response("a", 2.0), Response("b", 2.0)], pairs) == []
    assert form_pairs([Response("a", None), Response("b", None)], pairs) == []
    assert form_pairs([], pairs) == []


@pytest.mark.parametrize("ranked", [True, False])
def test_responses_in_no_pair_are_read_only_if_that_is_asked_for(ranked: bool) -> None:
    responses = [{"text": text, "score": n} for n, text in enumerate("abcd")]
    records: list[Any] = [{"prompt": "?", "responses": responses}]
    source = SourceOptions(path="data", scores=ScoreOptions(pairs="best_vs_worst"))
    if not ranked:
        records = [row("r", "?", tuple("abcd"), (0.0, 1.0, 2.0, 3.0), pairs=[Pair(3, 0)])]
    (complete,) = read_records(records, source).rows
    assert [response.text for response in complete.responses] == list("abcd")
    assert complete.pairs == (Pair(3, 0),)
    (used,) = read_records(records, source, ReadOptions(used_only=True)).rows
    assert [response.text for response in used.responses] == ["a", "d"]
    assert used.pairs == (Pair(1, 0),)


def settled(policy: ScoreOptions, *scores: float | None) -> tuple[Any, PairCounts]:
    counts = PairCounts()
    item = row("r", "?", ("a", "b"), scores, pairs=[Pair(0, 1, 0.5)])
    return select_pairs(item, policy, counts), counts


@pytest.mark.parametrize(
    ("misordered", "pairs"),
    [("keep", (Pair(0, 1, 0.5),)), ("swap", (Pair(1, 0, 0.5),)), ("drop", None)],
)
def test_a_pair_in_the_wrong_order_is_kept_swapped_or_dropped(misordered: Any, pairs: Any) -> None:
    result, counts = settled(ScoreOptions(misordered=misordered), 1.0, 3.0)
    assert (result and result.pairs) == pairs
    assert counts.misordered == 1
    assert counts.rows_dropped == (misordered == "drop")


@pytest.mark.parametrize(("margin", "kept"), [(0.0, True), (2.0, True), (2.5, False)])
def test_pairs_whose_scores_lie_too_close_are_dropped(margin: float, kept: bool) -> None:
    result, counts = settled(ScoreOptions(min_margin=margin), 3.0, 1.0)
    assert (result is not None, counts.below_margin) == (kept, not kept)


def test_a_swapped_pair_is_measured_in_its_new_order() -> None:
    result, counts = settled(ScoreOptions(misordered="swap", min_margin=2.0), 1.0, 3.0)
    assert result.pairs == (Pair(1, 0, 0.5),)
    assert counts.below_margin == 0


def test_a_valid_row_is_returned_unchanged() -> None:
    item = row()
    assert select_pairs(item, ScoreOptions(misordered="drop", ties="drop"), PairCounts()) is item


def test_pairs_without_scores_are_counted_and_kept() -> None:
    result, counts = settled(ScoreOptions(missing=0.3, min_margin=1.0, ties="drop"), None, 1.0)
    assert result is not None
    assert counts.unscored == 1
    (report_text,) = counts.sentences(ScoreOptions(missing=0.3))
    assert "1 pair has no score: quality weight 0.3, no calibrated NLL" in report_text


def test_a_row_that_loses_some_of_its_pairs_keeps_the_others() -> None:
    answers = [{"text": t, "score": s} for t, s in (("a", 5), ("b", 4.5), ("c", 1))]
    source = SourceOptions(path="data", scores=ScoreOptions(min_margin=1.0))
    loaded = read_records([{"prompt": "?", "responses": answers}], source)
    assert set(loaded.rows[0].pairs) == {Pair(0, 2), Pair(1, 2)}
    (report,) = loaded.reports
    assert report.pairs.below_margin == 1
    assert report.pairs.rows_dropped == 0
    assert "1 pair dropped: the scores differ by less than 1" in report.sentences()[0]


def test_a_ranked_row_weighs_all_its_pairs_alike() -> None:
    answers = [{"text": t, "score": s} for t, s in (("a", 5), ("b", 3), ("c", 1))]
    loaded = read_records([{"prompt": "?", "responses": answers, "weight": 0.25}])
    assert {pair.weight for pair in loaded.rows[0].pairs} == {0.25}


def test_columns_can_be_mapped_to_other_names() -> None:
    """Messages name the columns of the file, not ours."""
    source = SourceOptions(
        path="data", columns={"prompt": "ask", "chosen": "good", "rejected": "bad"}
    )
    loaded = read_records(
        [{"ask": "?", "good": "a", "bad": "b"}, {"ask": "?", "good": 5, "bad": ""}], source
    )
    assert [r.text for r in loaded.rows[0].responses] == ["a", "b"]
    assert [p.where.split("'")[-2] for p in loaded.problems] == ["good", "bad"]


def test_unused_columns_are_counted() -> None:
    records = [{"prompt": "?", "chosen": "a", "rejected": "b", "judge": "me", "note": None}] * 2
    (report,) = read_records(records).reports
    assert dict(report.unread) == {"judge": 2}
    assert dict(report.formats) == {"pairs": 2}


def test_rows_of_an_unknown_format_share_one_message() -> None:
    loaded = read_records([{"question": "?", "answer": "a"}] * 103)
    problem = loaded.problems[0]
    assert len(loaded.problems) == 103
    assert problem.where.startswith("data set 'data' row 1")
    assert "the columns answer, question fit no format" in problem.message
    headline, line = str(DataError(loaded.problems)).splitlines()
    assert "(103 problems)" in headline
    assert "The same for 102 more, for example data set 'data' row 2; data set 'data' row 3" in line
    assert "rlaif_v: chosen, question, rejected" in problem.remedy
    assert "unidpo-mm list formats" in problem.remedy

"""The scorer `judge_pairs`: both orders, ties, equal responses, partners, faults, costs."""

from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from support.response_candidates import candidates, score, values
from support.stub_server import prompt_text, server
from unidpo_mm_eval.response_scorers.judge_pairs import JudgePairs

from unidpo_mm.inference import endpoint as client_module
from unidpo_mm.pipelines.scorer import Fault, Score


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)


def texts_of(request: Any) -> tuple[str, str]:
    lines = prompt_text(request).splitlines()
    first, second = (
        next(line.removeprefix(start) for line in lines if line.startswith(start))
        for start in ("Assistant A: ", "Assistant B: ")
    )
    return first, second


def larger_wins(request: Any, before: int) -> str:
    a, b = map(int, texts_of(request))
    return "So: [[A>>B]]" if a > b else "[[B>A]]" if b > a else "[[A=B]]"


def test_the_share_of_wins_orders_responses(tmp_path: Path) -> None:
    items = candidates("1", "3", "<think>9</think>2", images=[make_image(1)])
    with server(larger_wins) as stub:
        scorer = JudgePairs(stub.url, "J")
        assert values(score(scorer, items, tmp_path)) == [0.0, 1.0, 0.5]
        assert len(stub.requests) == 6  # both orders of three pairs
        assert {texts_of(request) for request in stub.requests} == {
            (a, b) for a in "123" for b in "123" if a != b
        }
        assert stub.requests[0]["messages"][0]["content"][0]["type"] == "image_url"
        assert scorer.units(3, 1) == {"judge requests": 6}
        score(scorer, items, tmp_path)
        assert len(stub.requests) == 6  # replies are kept


def test_a_judge_that_prefers_a_position_finds_ties(tmp_path: Path) -> None:
    with server(lambda request, before: "[[A>B]]") as stub:
        results = score(JudgePairs(stub.url, "J"), candidates("1", "2", "3"), tmp_path)
    assert values(results) == [0.5] * 3


def test_equal_responses_tie_without_a_request(tmp_path: Path) -> None:
    items = candidates("2", "1", " 2", "3")
    with server(larger_wins) as stub:
        results = score(JudgePairs(stub.url, "J"), items, tmp_path)
        assert len(stub.requests) == 6
    assert values(results) == pytest.approx([0.5, 0.0, 0.5, 1.0])
    assert isinstance(results[0], Score)
    assert results[0].evidence == {"comparisons": 3}


@pytest.mark.parametrize("count", [5, 9, 12])
def test_with_many_responses_each_has_the_same_number_of_partners(
    tmp_path: Path, count: int
) -> None:
    items = candidates(*(str(n) for n in range(count)))
    with server(larger_wins) as stub:
        scorer = JudgePairs(stub.url, "J", all_pairs=4, partners=4)
        results = score(scorer, items, tmp_path)
        assert len(stub.requests) == scorer.units(count, 1)["judge requests"] == 4 * count
    assert {r.evidence["comparisons"] for r in results if isinstance(r, Score)} == {4}
    assert values(results)[0] == 0.0
    assert values(results)[-1] == 1.0


def test_groups_are_separate(tmp_path: Path) -> None:
    items = [*candidates("1", "2", name="a"), *candidates("7", "5", name="b")]
    with server(larger_wins) as stub:
        assert values(score(JudgePairs(stub.url, "J"), items, tmp_path)) == [0, 1, 1, 0]
        assert len(stub.requests) == 4
    assert JudgePairs("http://a/v1", "J").units(5, 2) == {"judge requests": 2 + 6}
    assert JudgePairs("http://a/v1", "J").units(0, 0) == {"judge requests": 0}


def test_missing_verdicts_are_faults_of_the_responses_that_they_concern(tmp_path: Path) -> None:
    def speak(request: Any, before: int) -> Any:
        return failure if set(texts_of(request)) == {"1", "2"} else larger_wins(request, 0)

    with server(speak) as stub:
        scorer = JudgePairs(stub.url, "J")
        items = candidates("1", "2", "3", "4")
        failure: Any = "hm"  # two of three comparisons suffice
        results = values(score(scorer, items, tmp_path / "a"))
        assert results == [0.0, 0.0, pytest.approx(2 / 3), 1.0]
        failure = 503  # a later run may get them
        results_later = score(scorer, items, tmp_path / "b")
        assert values(results_later) == ["server_error"] * 2 + [pytest.approx(2 / 3), 1.0]
        assert isinstance(results_later[0], Fault)
        assert results_later[0].temporary
        failure = "hm"
        assert values(score(scorer, candidates("1", "2"), tmp_path / "c")) == ["malformed"] * 2


def test_a_response_without_rivals_has_no_score(tmp_path: Path) -> None:
    with server(larger_wins) as stub:
        scorer = JudgePairs(stub.url, "J")
        assert values(score(scorer, candidates("1"), tmp_path)) == ["alone"]
        assert values(score(scorer, candidates("1", " "), tmp_path)) == ["alone", "no answer"]
        assert not stub.requests


def test_settings_are_checked() -> None:
    for settings in ({"partners": 3}, {"partners": 0}, {"all_pairs": 1}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            JudgePairs("http://a/v1", "J", **settings)

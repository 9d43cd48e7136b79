"""The scorer `judge`: clear ratings or faults, votes, images, kept replies, dead servers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_image
from support.response_candidates import candidates, score, values
from support.small_benchmarks import varied_checkpoint
from support.stub_server import prompt_text, server
from unidpo_mm_eval.judge.judges import LocalJudge
from unidpo_mm_eval.response_scorers.judge import Judge

from unidpo_mm.config.checks.parameters import build_parameters, typed_parameters
from unidpo_mm.errors import UniDPOError
from unidpo_mm.inference import endpoint as client_module
from unidpo_mm.pipelines.scorer import Fault, Score

ODD_REPLIES: dict[str, float | None] = {
    "It is right.\nrating: 8": 8,
    "rating: 10": 10,
    "Rating: 10/10": 10,
    "**Rating: 7**": 7,
    "**Rating:** 7.5": 7.5,
    "rating : 6 out of 10.": 6,
    "Final rating: 9": 9,
    "> _rating_: `4`": 4,
    "rating\uff1a3": 3,  # a full-width colon
    '{\n  "reason": "fine",\n  "rating": 5\n}': 5,
    "rating: 2\nrating: 2": 2,
    "rating: 1\n\nThe response invents a dog.": 1,
    "I would say 8.": None,
    "8": None,
    "rating:": None,
    "rating: N": None,
    "rating: eight": None,
    "rating: 0": None,
    "rating: 11": None,
    "rating: 85/100": None,
    "rating: 4/5": None,  # another scale
    "rating: -3": None,
    "rating: 7-8": None,
    "rating: 7 or 8": None,
    "rating: 7,5": None,  # it may mean 7.5, or two numbers
    "rating: 6\nOn reflection:\nrating: 8": None,
    "rating: 8 for style, 3 for truth": None,
    "I'm sorry, but I cannot rate this response.": None,
    "Bewertung: 8": None,
    "\u8bc4\u5206\uff1a8": None,
    "rating: \u0668": None,  # a digit of another script
    '{"reason": "it is right", "rating": ': None,
    "": None,
    "<think>It seems right. rating: 9": None,  # reasoning without an end
    "<think>rating: 3</think>\nrating: 9": 9,
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)


def test_odd_replies_are_ratings_or_faults_and_never_guessed(tmp_path: Path) -> None:
    assert len(ODD_REPLIES) >= 30
    replies = list(ODD_REPLIES)
    items = candidates(*(f"response {n}." for n in range(len(replies))))

    def speak(request: Any, before: int) -> str:
        return replies[int(response(request).split()[1].strip("."))]

    with server(speak) as stub:
        results = score(Judge(stub.url, "J"), items, tmp_path)
    expected = [rating if rating is not None else "malformed" for rating in ODD_REPLIES.values()]
    assert dict(zip(replies, values(results), strict=True)) == dict(
        zip(replies, expected, strict=True)
    )
    faults = [item for item in results if isinstance(item, Fault)]
    assert not any(fault.temporary for fault in faults)  # the same reply would come again


def test_a_reply_that_was_cut_is_a_fault(tmp_path: Path) -> None:
    """Of ``rating: 10``, ``rating: 1`` may be left."""
    choice = {"message": {"content": "rating: 1"}, "finish_reason": "length"}
    body = json.dumps({"choices": [choice]}).encode()
    with server(lambda request, before: body) as stub:
        (fault,) = score(Judge(stub.url, "J", max_tokens=5), candidates("x"), tmp_path)
        assert stub.requests[0]["max_tokens"] == 5
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.temporary) == ("malformed", False)
    assert "cut at 5 tokens" in fault.message


def test_equal_questions_are_asked_once_also_by_later_runs(tmp_path: Path) -> None:
    items = [*candidates("red", name="a"), *candidates("red", name="b"), *candidates("blue")]
    with server(lambda request, before: "rating: 3") as stub:
        scorer = Judge(stub.url, "J")
        first = score(scorer, items, tmp_path)
        assert len(stub.requests) == 2
        assert score(scorer, items, tmp_path) == first
        assert len(stub.requests) == 2
        score(Judge(stub.url, "J", rubric="10 if it is blue, else 1"), items[:1], tmp_path)
        assert len(stub.requests) == 3
        assert "10 if it is blue" in prompt_text(stub.requests[2])
        assert "clumsy" not in prompt_text(stub.requests[2])


def test_the_question_has_images_the_right_answer_and_no_reasoning(tmp_path: Path) -> None:
    items = candidates(
        "<think>Perhaps a {cat}.</think>A {dog}.",
        prompt="What {is} it?",
        gold="a {dog}",
        images=[make_image(1), make_image(2)],
    )
    with server(lambda request, before: "rating: 9") as stub:
        (result,) = score(Judge(stub.url, "J"), items, tmp_path)
        assert result == Score(9.0, {"replies": ["rating: 9"]})
        score(Judge(stub.url, "J"), candidates("A cat."), tmp_path)
        guided, plain = stub.requests
    assert [part["type"] for part in guided["messages"][0]["content"]] == ["image_url"] * 2 + [
        "text"
    ]
    text = prompt_text(guided)
    assert "these 2 images" in text
    assert "[image 1][image 2]What {is} it?" in text
    assert "Right answer, which the assistant did not see:\na {dog}" in text
    assert "{cat}" not in text
    assert "Right answer, " not in prompt_text(plain)
    assert "image" not in prompt_text(plain).split("Criteria")[0]
    assert (guided["temperature"], guided["seed"]) == (0, 0)


def test_votes_have_different_seeds_and_their_mean_counts(tmp_path: Path) -> None:
    replies = {0: "rating: 4", 1: "rating: 7", 2: "hm"}
    with server(lambda request, before: replies[request["seed"]]) as stub:
        (result,) = score(Judge(stub.url, "J", votes=3), candidates("x"), tmp_path)
        assert {request["temperature"] for request in stub.requests} == {1.0}
        replies[1] = "no idea"  # of four votes, two have a rating
        replies[3] = "rating: 4"
        (fault,) = score(Judge(stub.url, "J", votes=4), candidates("y"), tmp_path)
    assert isinstance(result, Score)
    assert result.value == 5.5
    assert result.evidence["ratings"] == [4, 7]
    assert result.evidence["without rating"] == 1
    assert isinstance(fault, Fault)
    assert fault.kind == "malformed"


def test_passing_failures_are_temporary_and_refusals_are_not(tmp_path: Path) -> None:
    replies = {"a": "rating: 5", "b": 429, "c": 500, "d": 400}
    items = candidates(*replies)
    with server(lambda request, before: replies[response(request)]) as stub:
        results = score(Judge(stub.url, "J"), items, tmp_path)
        assert values(results) == [5.0, "rate_limited", "server_error", "refused"]
        assert [isinstance(r, Fault) and r.temporary for r in results] == [False, True, True, False]
        replies["b"] = "rating: 6"
        again = score(Judge(stub.url, "J", votes=1), items[:2], tmp_path)
    assert values(again) == [5.0, 6.0]


def response(request: Any) -> str:
    return prompt_text(request).split("Response of the assistant:\n")[1].split("\n")[0]


def test_replies_without_a_rating_are_faults_even_if_all_are(tmp_path: Path) -> None:
    with server(lambda request, before: "I cannot.") as stub:
        items = candidates(*map(str, range(9)))
        assert values(score(Judge(stub.url, "J"), items, tmp_path)) == ["malformed"] * 9


@pytest.mark.parametrize("reply", [503, None])
def test_a_dead_server_ends_the_run(tmp_path: Path, reply: Any) -> None:
    with server(lambda request, before: reply) as stub:
        stub.owner = "vllm"
        items = candidates(*map(str, range(9)))
        with pytest.raises(UniDPOError, match=r"none of 9 requests got a reply.*Start or correct"):
            score(Judge(stub.url, "J"), items, tmp_path)


def test_few_failures_do_not_end_the_run(tmp_path: Path) -> None:
    """A single request that a server never answers must not stop every later run."""
    with server(lambda request, before: None) as stub:
        results = score(Judge(stub.url, "J", server="openai"), candidates("x"), tmp_path)
    assert values(results) == ["unreachable"]
    assert isinstance(results[0], Fault)
    assert results[0].temporary


def test_what_a_judge_cannot_get_is_a_fault(tmp_path: Path) -> None:
    video = candidates("It runs.", videos=[[make_image(n) for n in range(2)]])
    unfinished = candidates("<think>It may", " ")
    with server(lambda request, before: "rating: 5") as stub:
        results = score(Judge(stub.url, "J"), [*video, *unfinished], tmp_path)
        assert values(results) == ["video", "no answer", "no answer"]
        assert not stub.requests


def test_settings_are_checked() -> None:
    def problems(**settings: Any) -> list[str]:
        typed, wrong = typed_parameters(Judge, settings, "score.j", "the scorer 'judge'")
        built, refused = build_parameters(Judge, typed, "score.j")
        texts = [str(problem) for problem in (*wrong, *refused)]
        return texts if built is None else [*texts, *built.check({})]

    assert problems(model="J")[0].startswith("score.j.judge: it is not set")
    assert "'gpt' is not a judge" in problems(judge="gpt", votes=0)[0]
    url = "http://host/v1"
    assert problems(judge=url, model="J") == []
    texts = problems(judge=url, model="J", votes=0, max_tokens=0, rubric=" ")
    assert [text.split(":")[0] for text in texts] == [
        "score.j.votes", "score.j.max_tokens", "score.j.rubric",
    ]  # fmt: skip
    assert "all of them are equal" in problems(judge=url, model="J", votes=2, temperature=0.0)[0]
    assert "model is not set" in problems(judge=url)[0]
    assert "has no key" in problems(judge="local:x", key="K")[0]


def test_the_fingerprint_has_the_judge_but_neither_its_url_nor_its_key() -> None:
    first = Judge("http://a/v1", "J").fingerprint()
    assert Judge("http://b/v1", "J", key="K", server="vllm").fingerprint() == first
    for other in (Judge("http://a/v1", "K"), Judge("http://a/v1", "J", rubric="r")):
        assert other.fingerprint() != first
    assert Judge("http://a/v1", "J", votes=3).units(40, 10) == {"judge requests": 120}


@pytest.mark.parametrize("votes", [1, 2])
def test_a_local_judge_keeps_its_replies(
    tmp_path: Path, votes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tiny model replies nonsense: there is no rating, and nothing is guessed."""
    place = varied_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    scorer = Judge(f"local:{place}", max_tokens=4, dtype="float32", votes=votes)
    items = candidates("red", images=[make_image(1)])
    calls = count_calls(monkeypatch)
    first = score(scorer, items, tmp_path)
    assert values(first) == ["malformed"]
    assert len(calls) == votes
    assert "local" not in json.dumps(dict(scorer.fingerprint()))


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    calls: list[Any] = []
    generate: Callable[..., str] = LocalJudge._generate

    def counted(self: LocalJudge, messages: Any) -> str:
        calls.append(messages)
        return generate(self, messages)

    monkeypatch.setattr(LocalJudge, "_generate", counted)
    return calls


def test_a_local_judge_is_not_asked_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = varied_checkpoint(tmp_path / "llama", "llama")
    requests: list[Any] = []

    def generate(self: LocalJudge, messages: Any) -> str:
        requests.append((self.rules.seed, messages))
        return f"rating: {4 + self.rules.seed}"

    monkeypatch.setattr(LocalJudge, "_generate", generate)
    scorer = Judge(f"local:{place}", votes=2, dtype="float32")
    for _ in range(2):
        assert values(score(scorer, candidates("red"), tmp_path)) == [4.5]
    assert [seed for seed, _ in requests] == [0, 1]

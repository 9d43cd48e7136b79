"""A served model and its failures: typed, retried, and nothing that was answered is lost."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from asking import math_lines, option_table, predictions, said, talking_checkpoint
from scores import run, told
from served import Stub, server, words_of
from unidpo_mm_eval.models import chat as client_module
from unidpo_mm_eval.models.chat import ChatClient, Failure

from unidpo_mm.errors import RecipeError, UniDPOError

ASK = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(stub: Stub, **more: Any) -> ChatClient:
    settings = {"timeout": 5.0, "attempts": 4, "wait": 0.001} | more
    return ChatClient(stub.url, "served", **settings)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("rate_limited", 429),
        ("server_error", 503),
        ("unreachable", None),
        ("malformed", b"no json"),
        ("malformed", b'{"choices": []}'),
        ("malformed", b'{"choices": [{"message": {"content": null}}]}'),
        ("timeout", 0.4),
    ],
)
def test_failures_are_typed_and_what_passes_is_tried_again(kind: str, bad: Any) -> None:
    more = {"timeout": 0.1} if kind == "timeout" else {}
    with server(lambda request, before: bad if before < 2 else "4") as stub:
        assert client(stub, **more).chat(ASK).text == "4"
        assert len(stub.requests) == 3
    with server(lambda request, before: bad) as stub:
        with pytest.raises(Failure) as failed:
            client(stub, **more).chat(ASK)
        assert failed.value.kind == kind
        assert len(stub.requests) == 4


def test_what_a_server_refuses_is_not_tried_again() -> None:
    with server(lambda request, before: 400) as stub:
        with pytest.raises(Failure, match="refused: status 400"):
            client(stub).chat(ASK)
        assert len(stub.requests) == 1


def test_a_server_that_is_not_there() -> None:
    waits: list[float] = []
    alone = ChatClient("http://127.0.0.1:9/v1", "x", attempts=3, sleep=waits.append)
    with pytest.raises(Failure, match="unreachable"):
        alone.chat(ASK)
    assert waits == [1.0, 2.0]


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda request, before: 401) as stub:
        with pytest.raises(RecipeError, match="wants a key"):
            client(stub).chat(ASK)
        with pytest.raises(RecipeError, match="no key 'MINE'"):
            client(stub, key_name="MINE")
    monkeypatch.setenv("MINE", "secret")
    with server(lambda request, before: "4") as stub:
        client(stub, key_name="MINE").chat(ASK)
        assert stub.keys == ["Bearer secret"]
    with pytest.raises(RecipeError, match="no address of a server"):
        ChatClient("localhost:8000", "x")


def answering(request: Any, before: int) -> str:
    return "A" if "Which is" in words_of(request) else "It is \\boxed{4}"


def run_endpoint(stub: Stub, data: Path, out: Path, benchmark: str, *more: Any) -> Any:
    return run(
        "run", "--endpoint", stub.url, "--served-model", "org/served", "-b", benchmark,
        "--data", data, "--out", out, "--timeout", 5, *more,
    )  # fmt: skip


def test_a_served_model_is_asked_what_a_checkpoint_is(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    with server(answering) as stub:
        done = run_endpoint(stub, data, out, "ai2d", "--prompt", "vlmevalkit-qwen2vl")
    assert done.exit_code == 0, told(done)
    path = out / "org--served" / "ai2d.jsonl"
    found = predictions(path)
    assert list(found) == [str(n) for n in range(11)]
    assert {one["response"] for one in found.values()} == {"A"}
    manifest = json.loads(path.read_text().splitlines()[0])["manifest"]
    assert manifest["backend"] == f"endpoint {stub.url}"
    checkpoint = talking_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    local = run("run", checkpoint, "-b", "ai2d", "--data", data, "--out", out,
                "--max-new-tokens", 2)  # fmt: skip
    assert local.exit_code == 0, told(local)
    mine = predictions(out / "qwen2_vl" / "ai2d.jsonl")
    for name in ("prompt", "pictures"):
        assert {n: one[name] for n, one in mine.items()} == {
            n: one[name] for n, one in found.items()
        }
    content = stub.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert stub.requests[0]["temperature"] == 0


def test_math_is_asked_with_the_papers_words(tmp_path: Path) -> None:
    data = math_lines(tmp_path)
    with server(answering) as stub:
        done = run_endpoint(stub, data, tmp_path / "out", "gsm8k", "--protocol", "math-verify")
    assert done.exit_code == 0, told(done)
    system, user = stub.requests[0]["messages"]
    assert system["content"].startswith("Please reason step by step")
    assert user["content"].endswith("and output the final answer within \\boxed{}")
    result = json.loads((tmp_path / "out" / "org--served" / "gsm8k.json").read_text())
    assert result["metrics"]["accuracy"] == pytest.approx(100 / 7)


def test_a_server_that_dies_in_mid_run_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "LONGEST_WAIT", 0.001)
    data, out = option_table(tmp_path), tmp_path / "out"
    answered = threading.Semaphore(5)

    def dying(request: Any, before: int) -> Any:
        return "A" if answered.acquire(blocking=False) else None

    with server(dying) as stub:
        done = run_endpoint(stub, data, out, "ai2d")
    assert isinstance(done.exception, UniDPOError)
    text = told(done)
    assert "6 of 11 questions were not answered by http://127.0.0.1" in text
    assert "(unreachable 6). The other answers are kept: run it again to ask the rest" in text
    part = out / "org--served" / "ai2d.parts" / "0.jsonl"
    kept = said(part)
    assert len(kept) == 5
    with server(lambda request, before: "B") as alive:
        # the address is another one: what was asked of the first is refused, and kept
        refused = run_endpoint(alive, data, out, "ai2d")
        assert "it holds predictions that were made otherwise" in told(refused)
        text = part.read_text().replace(stub.url, alive.url)
        part.write_text(text)
        assert run_endpoint(alive, data, out, "ai2d").exit_code == 0
        assert len(alive.requests) == 6
    found = said(out / "org--served" / "ai2d.jsonl")
    assert {own: found[own] for own in kept} == kept
    assert sorted(found.values()) == ["A"] * 5 + ["B"] * 6


def test_a_server_that_refuses_everything_gives_no_number(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    with server(lambda request, before: 400) as stub:
        text = told(run_endpoint(stub, data, out, "ai2d"))
    assert "not one of 11 questions was answered; the first: refused: status 400" in text
    assert not (out / "org--served" / "ai2d.json").exists()


def test_parity_says_where_backends_differ(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    checkpoint = talking_checkpoint(tmp_path / "llava", "llava")
    words = ("run", checkpoint, "-b", "ai2d", "--data", data, "--out", out, "--max-new-tokens", 4)
    assert run(*words).exit_code == 0
    mine = said(out / "llava" / "ai2d.jsonl")
    by_question = {f"Which is {n}?": text for n, text in mine.items()}

    def same(request: Any, before: int) -> str:
        asked = words_of(request)
        return next(text for words, text in by_question.items() if words in asked)

    more = ("-b", "ai2d", "--data", data, "--max-new-tokens", 4, "--served-model", "x")
    with server(same) as stub:
        done = run("parity", checkpoint, "--endpoint", stub.url, "--out", tmp_path / "p", *more)
    assert done.exit_code == 0, done.output
    assert done.output.split("\n")[1].split()[2:5] == ["11", "11", "11"]
    with server(lambda request, before: "A") as stub:
        done = run("parity", checkpoint, "--endpoint", stub.url, "--out", tmp_path / "q", *more)
    assert done.exit_code == 1
    assert "'A' served" in " ".join(done.output.split())


def test_no_network_is_used_unless_an_address_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a connection was made")

    checkpoint = talking_checkpoint(tmp_path / "llava", "llava")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)
    data = option_table(tmp_path)
    words = ("-b", "ai2d", "--data", data)
    done = run("run", checkpoint, *words, "--out", tmp_path / "out", "--max-new-tokens", 2)
    assert done.exit_code == 0, told(done)
    said_by = tmp_path / "out" / "llava" / "ai2d.jsonl"
    assert run("score", *words, "--predictions", said_by).exit_code == 0
    assert run("data", "check", *words).exit_code == 0


def test_waiting_is_never_longer_than_a_minute() -> None:
    waits: list[float] = []
    with server(lambda request, before: 503) as stub:
        long = client(stub, attempts=9, wait=16.0, sleep=waits.append)
        began = time.monotonic()
        with pytest.raises(Failure):
            long.chat(ASK)
    assert waits == [16.0, 32.0] + [60.0] * 6
    assert time.monotonic() - began < 5

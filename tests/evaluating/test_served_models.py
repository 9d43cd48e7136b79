"""A server and its failures, which have kinds and are retried; no response is lost."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from support.eval_commands import run, text_of
from support.small_benchmarks import (
    math_lines,
    option_table,
    predictions,
    responses_of,
    varied_checkpoint,
)
from support.stub_server import StubServer, prompt_text, server

from unidpo_mm.errors import RecipeError, UniDPOError
from unidpo_mm.inference import endpoint as client_module
from unidpo_mm.inference.endpoint import ChatClient, ChatFailure

ASK = [{"role": "user", "content": "2 + 2?"}]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def client(stub: StubServer, **options: Any) -> ChatClient:
    settings = {"timeout": 5.0, "attempts": 4, "wait": 0.001} | options
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
def test_failures_have_kinds_and_temporary_ones_are_retried(kind: str, bad: Any) -> None:
    options = {"timeout": 0.1} if kind == "timeout" else {}
    with server(lambda request, before: bad if before < 2 else "4") as stub:
        assert client(stub, **options).chat(ASK).text == "4"
        assert len(stub.requests) == 3
    with server(lambda request, before: bad) as stub:
        with pytest.raises(ChatFailure) as failed:
            client(stub, **options).chat(ASK)
        assert failed.value.kind == kind
        assert len(stub.requests) == 4


def test_refused_requests_are_not_retried() -> None:
    with server(lambda request, before: 400) as stub:
        with pytest.raises(ChatFailure, match="refused: status 400"):
            client(stub).chat(ASK)
        assert len(stub.requests) == 1


def test_an_unreachable_server_is_an_error() -> None:
    waits: list[float] = []
    alone = ChatClient("http://127.0.0.1:9/v1", "x", attempts=3, sleep=waits.append)
    with pytest.raises(ChatFailure, match="unreachable"):
        alone.chat(ASK)
    assert waits == [1.0, 2.0]


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(lambda request, before: 401) as stub:
        with pytest.raises(RecipeError, match="requires an API key"):
            client(stub).chat(ASK)
        with pytest.raises(RecipeError, match="variable MINE is not set"):
            client(stub, key_name="MINE")
    monkeypatch.setenv("MINE", "secret")
    with server(lambda request, before: "4") as stub:
        client(stub, key_name="MINE").chat(ASK)
        assert stub.keys == ["Bearer secret"]
    with pytest.raises(RecipeError, match="not the URL of a server"):
        ChatClient("localhost:8000", "x")


def answering(request: Any, before: int) -> str:
    return "A" if "Which is" in prompt_text(request) else "It is \\boxed{4}"


def run_endpoint(stub: StubServer, data: Path, out: Path, benchmark: str, *options: Any) -> Any:
    return run(
        "run", "--endpoint", stub.url, "--served-model", "org/served", "-b", benchmark,
        "--data", data, "--output", out, "--timeout", 5, *options,
    )  # fmt: skip


def test_a_server_gets_the_prompts_of_a_checkpoint(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    with server(answering) as stub:
        done = run_endpoint(stub, data, out, "ai2d", "--prompt", "vlmevalkit-qwen2vl")
    assert done.exit_code == 0, text_of(done)
    path = out / "org--served" / "ai2d.jsonl"
    actual = predictions(path)
    assert list(actual) == [str(n) for n in range(11)]
    assert {item["response"] for item in actual.values()} == {"A"}
    manifest = json.loads(path.read_text().splitlines()[0])["manifest"]
    assert manifest["backend"] == f"endpoint {stub.url}"
    checkpoint = varied_checkpoint(tmp_path / "qwen2_vl", "qwen2_vl")
    local = run("run", checkpoint, "-b", "ai2d", "--data", data, "--output", out,
                "--max-new-tokens", 2)  # fmt: skip
    assert local.exit_code == 0, text_of(local)
    predictions_file = predictions(out / "qwen2_vl" / "ai2d.jsonl")
    for name in ("prompt", "images"):
        assert {n: item[name] for n, item in predictions_file.items()} == {
            n: item[name] for n, item in actual.items()
        }
    content = stub.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "text"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    assert stub.requests[0]["temperature"] == 0


def test_math_prompts_are_those_of_the_paper(tmp_path: Path) -> None:
    data = math_lines(tmp_path)
    with server(answering) as stub:
        done = run_endpoint(stub, data, tmp_path / "out", "gsm8k", "--protocol", "math-verify")
    assert done.exit_code == 0, text_of(done)
    system, user = stub.requests[0]["messages"]
    assert system["content"].startswith("Please reason step by step")
    assert user["content"].endswith("and output the final answer within \\boxed{}")
    result = json.loads((tmp_path / "out" / "org--served" / "gsm8k.json").read_text())
    assert result["metrics"]["accuracy"] == pytest.approx(100 / 7)


def test_responses_are_kept_if_a_server_fails_during_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)
    data, out = option_table(tmp_path), tmp_path / "out"
    replies = threading.Semaphore(5)

    def dying(request: Any, before: int) -> Any:
        return "A" if replies.acquire(blocking=False) else None

    with server(dying) as stub:
        done = run_endpoint(stub, data, out, "ai2d")
    assert isinstance(done.exception, UniDPOError)
    text = text_of(done)
    assert "6 of 11 requests to http://127.0.0.1" in text
    assert (
        "failed (unreachable 6). The other responses are stored: run the same command again" in text
    )
    part = out / "org--served" / "ai2d.parts" / "0.jsonl"
    kept = responses_of(part)
    assert len(kept) == 5
    with server(lambda request, before: "B") as alive:
        # the address is another one: what was asked of the first is refused, and kept
        refused = run_endpoint(alive, data, out, "ai2d")
        assert "predictions were made with different settings" in text_of(refused)
        text = part.read_text().replace(stub.url, alive.url)
        part.write_text(text)
        assert run_endpoint(alive, data, out, "ai2d").exit_code == 0
        assert len(alive.requests) == 6
    actual = responses_of(out / "org--served" / "ai2d.jsonl")
    assert {key: actual[key] for key in kept} == kept
    assert sorted(actual.values()) == ["A"] * 5 + ["B"] * 6


def test_a_server_that_refuses_every_request_yields_no_result(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    with server(lambda request, before: 400) as stub:
        text = text_of(run_endpoint(stub, data, out, "ai2d"))
    assert "all 11 requests were refused; the first: refused: status 400" in text
    assert not (out / "org--served" / "ai2d.json").exists()


def test_parity_reports_differences_between_backends(tmp_path: Path) -> None:
    data, out = option_table(tmp_path), tmp_path / "out"
    checkpoint = varied_checkpoint(tmp_path / "llava", "llava")
    words = (
        "run",
        checkpoint,
        "-b",
        "ai2d",
        "--data",
        data,
        "--output",
        out,
        "--max-new-tokens",
        4,
    )
    assert run(*words).exit_code == 0
    predictions_file = responses_of(out / "llava" / "ai2d.jsonl")
    by_question = {f"Which is {n}?": text for n, text in predictions_file.items()}

    def same(request: Any, before: int) -> str:
        runs = prompt_text(request)
        return next(text for words, text in by_question.items() if words in runs)

    options = ("-b", "ai2d", "--data", data, "--max-new-tokens", 4, "--served-model", "x")
    with server(same) as stub:
        done = run(
            "parity", checkpoint, "--endpoint", stub.url, "--output", tmp_path / "p", *options
        )
    assert done.exit_code == 0, done.output
    assert done.output.split("\n")[1].split()[2:5] == ["11", "11", "11"]
    with server(lambda request, before: "A") as stub:
        done = run(
            "parity", checkpoint, "--endpoint", stub.url, "--output", tmp_path / "q", *options
        )
    assert done.exit_code == 1
    assert "'A' served" in " ".join(done.output.split())


def test_no_network_is_used_without_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("a connection was made")

    checkpoint = varied_checkpoint(tmp_path / "llava", "llava")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)
    data = option_table(tmp_path)
    words = ("-b", "ai2d", "--data", data)
    done = run("run", checkpoint, *words, "--output", tmp_path / "out", "--max-new-tokens", 2)
    assert done.exit_code == 0, text_of(done)
    said_by = tmp_path / "out" / "llava" / "ai2d.jsonl"
    assert run("score", *words, "--predictions", said_by).exit_code == 0
    assert run("data", "check", *words).exit_code == 0


def test_waiting_is_never_longer_than_a_minute() -> None:
    waits: list[float] = []
    with server(lambda request, before: 503) as stub:
        long = client(stub, attempts=9, wait=16.0, sleep=waits.append)
        began = time.monotonic()
        with pytest.raises(ChatFailure):
            long.chat(ASK)
    assert waits == [16.0, 32.0] + [60.0] * 6
    assert time.monotonic() - began < 5

"""Requests contain every sampling parameter that a server supports, and files record them."""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.eval_commands import run, text_of
from support.small_benchmarks import option_table
from support.stub_server import server
from unidpo_mm_eval.judge.cache import ReplyCache
from unidpo_mm_eval.judge.judges import EndpointJudge

from unidpo_mm.errors import RecipeError, UniDPOError
from unidpo_mm.inference.endpoint import ChatClient, ChatFailure
from unidpo_mm.inference.sampling import greedy_sampling

ASK = [{"role": "user", "content": "2 + 2?"}]
PLAIN = {"temperature": 0, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0, "seed": 0}
EXTENDED = {**PLAIN, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return option_table(tmp_path, rows=3)


def ask(url: str, data: Path, out: Path, *options: Any) -> Any:
    return run(
        "run", "--endpoint", url, "--served-model", "org/served", "-b", "ai2d", "--data", data,
        "--output", out, "--timeout", 5, "--max-new-tokens", 9, *options,
    )  # fmt: skip


def sent(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if name not in ("model", "messages")}


def manifest_of(out: Path) -> dict[str, Any]:
    path = out / "org--served" / "ai2d.jsonl"
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0])["manifest"]


@pytest.mark.parametrize(
    ("owner", "options", "kind", "fields"),
    [
        (None, (), "unknown", PLAIN),
        ("organization-owner", (), "unknown", PLAIN),
        ("openai", (), "openai", PLAIN),
        ("vllm", (), "vllm", EXTENDED),
        ("sglang", (), "sglang", EXTENDED),
        (None, ("--server", "vllm"), "vllm", EXTENDED),
        ("vllm", ("--server", "openai"), "openai", PLAIN),
    ],
)
def test_every_parameter_is_sent_and_recorded(
    owner: str | None, options: Any, kind: str, fields: Any, data: Path, tmp_path: Path
) -> None:
    with server(lambda request, before: "A") as stub:
        stub.owner = owner
        done = ask(stub.url, data, tmp_path / "out", *options)
        assert done.exit_code == 0, text_of(done)
        assert len(stub.requests) == 3
        for request in stub.requests:
            assert sent(request) == fields | {"max_tokens": 9}
    manifest = manifest_of(tmp_path / "out")
    assert manifest["sampling"] == fields | {"max_tokens": 9}
    assert manifest["server"] == kind


def test_a_judge_is_sent_every_parameter() -> None:
    for owner, fields in ((None, PLAIN), ("vllm", EXTENDED)):
        with server(lambda request, before: "rating: 3") as stub:
            stub.owner = owner
            EndpointJudge(ChatClient(stub.url, "org/served")).ask(ASK)
            assert sent(stub.requests[0]) == fields | {"max_tokens": 1024}
            assert stub.paths.count("/v1/models") == 1


def test_cached_replies_to_other_requests_are_not_used(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path / "answers.sqlite")
    with server(lambda request, before: "new") as stub:
        stub.owner = "vllm"
        before = {"address": stub.url, "model": "J", "temperature": 0, "max_tokens": 1024}
        cache.put(before | {"messages": ASK}, "old")
        assert EndpointJudge(ChatClient(stub.url, "J"), cache).ask(ASK) == "new"
    dead = ChatClient(stub.url, "J", attempts=1)  # the server no longer runs
    assert EndpointJudge(dead, cache).ask(ASK) == "new"
    with pytest.raises(ChatFailure, match="unreachable"):
        EndpointJudge(ChatClient(stub.url, "J", attempts=1)).ask(ASK)


def test_the_kind_of_an_unreachable_server_is_requested_once() -> None:
    waits: list[float] = []
    client = ChatClient("http://127.0.0.1:9/v1", "x", attempts=3, sleep=waits.append)
    judge = EndpointJudge(client)
    for _ in range(4):
        with pytest.raises(ChatFailure, match="unreachable"):
            judge.ask(ASK)
    assert len(waits) == 2


def test_fields_that_a_server_may_not_support_are_never_omitted_silently() -> None:
    with server(lambda request, before: "A") as stub:
        client = ChatClient(stub.url, "x")
        with pytest.raises(RecipeError, match="which support 'repetition_penalty'"):
            greedy_sampling(client, max_tokens=9, repetition_penalty=1.05)
        stub.owner = "vllm"
        fields = greedy_sampling(ChatClient(stub.url, "x"), max_tokens=9, repetition_penalty=1.05)
        assert fields["repetition_penalty"] == 1.05


def test_a_kind_of_server_that_does_not_exist_is_refused(data: Path, tmp_path: Path) -> None:
    done = ask("http://127.0.0.1:9/v1", data, tmp_path, "--server", "vlm")
    assert "unknown kind of server 'vlm', did you mean 'vllm'?" in text_of(done)


def test_an_unreachable_server_is_reported_immediately(data: Path, tmp_path: Path) -> None:
    from unidpo_mm.inference import endpoint as client

    before, client.MAX_WAIT = client.MAX_WAIT, 0.001
    try:
        done = ask("http://127.0.0.1:9/v1", data, tmp_path)
    finally:
        client.MAX_WAIT = before
    assert isinstance(done.exception, UniDPOError)
    assert "Check the URL and whether the server is running" in text_of(done)


def rewritten(out: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest of a file of predictions."""
    path = out / "org--served" / "ai2d.jsonl"
    first, *others = path.read_text(encoding="utf-8").splitlines()
    header = json.loads(first)
    change(header["manifest"])
    path.write_text("\n".join([json.dumps(header), *others]) + "\n", encoding="utf-8")


def test_files_of_earlier_versions_are_refused_with_the_reason(data: Path, tmp_path: Path) -> None:
    out, results = tmp_path / "out", []
    with server(lambda request, before: "A") as stub:
        assert ask(stub.url, data, out).exit_code == 0
        assert ask(stub.url, data, out).exit_code == 0
        assert len(stub.requests) == 3
        new = out / "org--served" / "ai2d.json"
        results.append(new.rename(tmp_path / "new.json"))
        rewritten(out, lambda manifest: manifest.pop("sampling"))
        done = ask(stub.url, data, out)
        assert "sampling: not recorded: earlier versions omitted parameters" in text_of(done)
        assert "generation_config.json" in text_of(done)
    words = ("-b", "ai2d", "--data", data, "--predictions", out / "org--served" / "ai2d.jsonl")
    assert run("score", *words, "--output", tmp_path / "old.json").exit_code == 0
    done = run("compare", tmp_path / "old.json", *results)
    assert "its sampling is recorded" in text_of(done)
    assert "an earlier version left parameters to the server" in text_of(done)


def test_a_new_version_of_a_protocol_reuses_cached_replies(data: Path, tmp_path: Path) -> None:
    with server(lambda request, before: "A") as stub:
        assert ask(stub.url, data, tmp_path, "--protocol", "clean").exit_code == 0
        rewritten(tmp_path, lambda manifest: manifest.update(protocol="clean@1"))
        done = ask(stub.url, data, tmp_path, "--protocol", "clean")
        assert done.exit_code == 0, text_of(done)
        assert len(stub.requests) == 3


def test_template_variables_are_sent_to_servers_that_take_them(data: Path, tmp_path: Path) -> None:
    options = ("--chat-template-kwargs", '{"enable_thinking": false}')
    with server(lambda request, before: "A") as stub:
        done = ask(stub.url, data, tmp_path / "out", *options)
        assert "which support 'chat_template_kwargs'" in text_of(done)
        assert not stub.requests
        stub.owner = "vllm"
        done = ask(stub.url, data, tmp_path / "out", *options)
        assert done.exit_code == 0, text_of(done)
        assert stub.requests[0]["chat_template_kwargs"] == {"enable_thinking": False}
        other = ask(stub.url, data, tmp_path / "out")
        assert "predictions were made with different settings" in text_of(other)
    assert manifest_of(tmp_path / "out")["chat_template_kwargs"] == {"enable_thinking": False}


def test_passwords_and_keys_of_an_address_are_in_no_file_and_no_message(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def flaky(request: Any, before: int) -> Any:
        return "A" if request["seed"] == 0 else 400

    with server(flaky) as stub:
        address = stub.url.replace("http://", "http://me:hunter2@") + "?api_key=hunter3"
        done = ask(address, data, out)
        assert done.exit_code == 0, text_of(done)
        assert set(stub.paths) == {
            "/v1/models?api_key=hunter3", "/v1/chat/completions?api_key=hunter3"
        }  # fmt: skip
        basic = base64.b64encode(b"me:hunter2").decode()
        assert set(stub.keys) == {f"Basic {basic}"}
    texts = [done.output, *(path.read_text() for path in out.rglob("*.json*"))]
    assert len(texts) > 2
    assert not any("hunter" in text for text in texts)
    assert "http://***@127.0.0.1" in manifest_of(out)["backend"]
    client = ChatClient(address, "x", attempts=1, timeout=1)  # the server has stopped
    with pytest.raises(ChatFailure) as failed:
        client.chat(ASK)
    assert "hunter" not in str(failed.value) + repr(client)
    with pytest.raises(RecipeError) as refused:
        ChatClient("ftp://me:hunter2@host/v1", "x")
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_that_was_cut_is_an_empty_answer(name: str) -> None:
    message = {"content": None, name: "is it 4? or 5"}
    body = {"choices": [{"message": message, "finish_reason": "length"}]}
    with server(lambda request, before: json.dumps(body).encode()) as stub:
        responses = ChatClient(stub.url, "x").chat(ASK)
    assert (responses.text, responses.finish_reason) == ("", "length")

"""Responses are sampled from servers with every parameter set, and stored as they arrive."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.served_sampling import (
    completion,
    drawn,
    like_vllm,
    run_sampling,
    sampled,
    served,
    strict,
    write_prompts,
    write_recipe,
)
from support.stub_server import StubServer, prompt_text, server

from unidpo_mm.errors import DataError, RecipeError, UniDPOError
from unidpo_mm.inference import endpoint as client_module
from unidpo_mm.pipelines.files import Share
from unidpo_mm.pipelines.load import load_make_recipe
from unidpo_mm.pipelines.run import make

PLAIN = {
    "temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0, "presence_penalty": 0,
    "max_tokens": 9,
}  # fmt: skip
EXTENDED = {**PLAIN, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)


def sent(request: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in request.items() if k not in ("model", "messages", "seed", "n")}


def manifest_of(folder: Path) -> dict[str, Any]:
    path = folder / "made" / "responses.jsonl"
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0])["manifest"]


def of_vllm(stub: StubServer) -> StubServer:
    stub.owner = "vllm"
    return stub


@pytest.mark.parametrize(("owner", "fields"), [(None, PLAIN), ("vllm", EXTENDED)])
def test_every_request_has_every_parameter(owner: str | None, fields: Any, tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)
    speak = strict(like_vllm) if owner is None else like_vllm
    with server(speak) as stub:
        stub.owner = owner
        responses = sampled(tmp_path, server=served(stub.url), n=3)
    assert len(responses) == 36
    assert len({item["response"] for item in responses.values()}) == 36
    for request in stub.requests:
        assert sent(request) == fields
        assert 0 <= request["seed"] < 2**31
    manifest = manifest_of(tmp_path)
    assert manifest["request"] == fields
    assert manifest["server"] == {"kind": owner or "unknown", "urls": [stub.url]}
    assert manifest["model"] == "served org/served"


def test_extensions_and_stop_strings_are_sent_to_servers_that_take_them(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    options = {"top_k": 40, "min_p": 0.1, "stop": ["\n\n"], "n": 2}
    with server(strict(like_vllm)) as stub:
        with pytest.raises(RecipeError) as refused:
            sampled(tmp_path, server=served(stub.url), **options)
        assert "which support 'top_k'. Set sample.server.kind to vllm" in str(refused.value)
        assert "which support 'min_p'" in str(refused.value)
        with pytest.raises(RecipeError, match="5 stop strings, and OpenAI's protocol allows 4"):
            sampled(tmp_path, server=served(stub.url), stop=list("abcde"))
        assert not stub.requests
    with server(like_vllm) as stub:
        sampled(tmp_path, server=served(stub.url, kind="sglang"), **options)
        assert not [path for path in stub.paths if path.endswith("models")]
    changed = {"top_k": 40, "min_p": 0.1, "stop": ["\n\n"]}
    assert all(sent(request) == EXTENDED | changed for request in stub.requests)


def test_response_k_has_the_seed_of_the_prompt_plus_k(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)
    with server(like_vllm) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=4)
    by_prompt = {prompt_text(request): request for request in stub.requests}
    for number in range(12):
        seeds = [responses[f"p{number}#{k}"]["seed"] for k in range(4)]
        assert seeds == [*range(seeds[0], seeds[0] + 4)]
        request = by_prompt[f"Count to {number}, please."]
        expected = [drawn(request, seed) for seed in seeds]
        assert [responses[f"p{number}#{k}"]["response"] for k in range(4)] == expected
    assert len({responses[f"p{number}#0"]["seed"] for number in range(12)}) == 12


def test_a_larger_number_of_responses_keeps_the_existing_ones(tmp_path: Path) -> None:
    write_prompts(tmp_path, 10)
    with server(like_vllm) as stub:
        section = served(of_vllm(stub).url)
        first = sampled(tmp_path, server=section, n=2)
        assert sum(request.get("n", 1) for request in stub.requests) == 20
        second = sampled(tmp_path, server=section, n=5)
        assert sum(request.get("n", 1) for request in stub.requests) == 50
    assert {name: second[name] for name in first} == first
    assert sampled(tmp_path, server=section, n=2).keys() >= first.keys()  # no server is needed
    (tmp_path / "made" / "responses.jsonl").unlink()
    with server(like_vllm) as stub:
        at_once = sampled(tmp_path, server=served(of_vllm(stub).url), n=5)
    texts = [{name: item["response"] for name, item in made.items()} for made in (second, at_once)]
    assert texts[0] == texts[1]


def test_a_failing_server_loses_no_response_and_nothing_is_requested_twice(tmp_path: Path) -> None:
    write_prompts(tmp_path, 20)
    replies = threading.Semaphore(13)

    def dying(request: Any, before: int) -> Any:
        return like_vllm(request) if replies.acquire(blocking=False) else 503

    alive = False

    def speak(request: Any, before: int) -> Any:
        return like_vllm(request) if alive else dying(request, before)

    with server(speak) as stub:
        section = served(of_vllm(stub).url)
        with pytest.raises(UniDPOError) as failed:
            sampled(tmp_path, server=section, n=3)
        assert "15 requests failed (15 server_error), for example:" in str(failed.value)
        assert "server_error: prompt 'p" in str(failed.value)
        assert "run the same command again to resume" in str(failed.value)
        part = tmp_path / "made" / "responses.parts" / "0.jsonl"
        stored = [json.loads(line) for line in part.read_text().splitlines()[1:]]
        assert len(stored) >= 8 * 2
        with part.open("a") as stream:
            stream.write('{"id": "p19#2", "resp')  # a killed process
        alive, before = True, len(stub.requests)
        responses = sampled(tmp_path, server=section, n=3)
    assert len(responses) == 60
    assert {item["id"]: item for item in stored} == {
        item["id"]: responses[item["id"]] for item in stored
    }
    later = sum(request.get("n", 1) for request in stub.requests[before:])
    assert later == 60 - len(stored)


def test_prompts_are_spread_and_those_of_a_dead_server_go_to_the_others(tmp_path: Path) -> None:
    write_prompts(tmp_path, 60)
    with server(like_vllm) as first, server(like_vllm) as second:
        urls = [of_vllm(first).url, of_vllm(second).url]
        expected = sampled(tmp_path, server=served(*urls), n=2)
        shares = [{prompt_text(request) for request in stub.requests} for stub in (first, second)]
        assert min(map(len, shares)) > 15
        assert not shares[0] & shares[1]
    (tmp_path / "made" / "responses.jsonl").unlink()
    left = threading.Semaphore(12)
    with (
        server(lambda r, before: like_vllm(r) if left.acquire(blocking=False) else None) as dying,
        server(like_vllm) as alive,
    ):
        urls = [of_vllm(dying).url, of_vllm(alive).url]
        assert sampled(tmp_path, server=served(*urls, kind="vllm"), n=2) == expected
        assert sum(request["n"] for request in alive.requests) == 120 - 24
    assert len(dying.requests) < 12 + 6 * 4 + 1  # no longer asked after its death


def test_all_servers_dead(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    for section in (served("http://127.0.0.1:9/v1"), served("http://127.0.0.1:9/v1", kind="vllm")):
        with pytest.raises(UniDPOError) as failed:
            sampled(tmp_path, server=section)
        assert "sample.server.urls: no reply from http://127.0.0.1:9/v1" in str(failed.value)
        assert "Check the URLs, and whether the servers are running" in str(failed.value)


def test_refused_prompts_are_recorded_and_do_not_stop_the_others(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)

    def speak(request: Any, before: int) -> Any:
        return 400 if prompt_text(request) == "Count to 7, please." else like_vllm(request)

    with server(speak) as stub:
        section = served(of_vllm(stub).url)
        responses = sampled(tmp_path, server=section, n=2)
        requests = len(stub.requests)
        sampled(tmp_path, server=section, n=2)
        assert len(stub.requests) == requests
    faults = {name: item for name, item in responses.items() if "fault" in item}
    assert list(faults) == ["p7#0", "p7#1"]
    assert faults["p7#0"]["fault"] == "refused"
    assert faults["p7#0"]["message"].startswith("status 400")


def test_a_model_that_disappears_during_a_run_is_no_fault_of_prompts(tmp_path: Path) -> None:
    write_prompts(tmp_path, 20)
    left = threading.Semaphore(10)

    def speak(request: Any, before: int) -> Any:
        return like_vllm(request) if left.acquire(blocking=False) else 404

    expected = r"10 requests failed \(10 refused\), for example: refused: prompt 'p"
    with server(speak) as stub, pytest.raises(UniDPOError, match=expected):
        sampled(tmp_path, server=served(of_vllm(stub).url), n=2)
    text = (tmp_path / "made" / "responses.parts" / "0.jsonl").read_text()
    assert "fault" not in text


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)
    with server(lambda request, before: like_vllm(request) if before else 429) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=2)
    assert len(responses) == 24
    assert len(stub.requests) == 24


def test_a_request_with_fewer_choices_is_completed(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)

    def speak(request: Any, before: int) -> Any:
        if request.get("n") == 4 and prompt_text(request) == "Count to 11, please.":
            return completion([drawn(request, request["seed"])])
        return like_vllm(request)

    with server(speak) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=4)
    assert len({item["response"] for item in responses.values()}) == 48


def test_a_limit_of_the_number_of_choices_is_no_fault_of_prompts(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)

    def speak(request: Any, before: int) -> Any:
        return 400 if request.get("n", 1) > 2 else like_vllm(request)

    with server(speak) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=4)
    assert not [item for item in responses.values() if "fault" in item]
    assert len({item["response"] for item in responses.values()}) == 48


def test_other_parameters_are_refused_with_the_reason(tmp_path: Path) -> None:
    write_prompts(tmp_path, 4)
    with server(like_vllm) as stub:
        section = served(of_vllm(stub).url)
        sampled(tmp_path, server=section, n=2)
        with pytest.raises(DataError) as refused:
            sampled(tmp_path, "sample.temperature=1.0", server=section, n=2)
        assert "responses were made with different settings: request." in str(refused.value)
        assert "sampling.temperature was 0.8 and is 1.0" in str(refused.value)
        assert "Use the same settings or another output, or delete the file" in str(refused.value)
        with pytest.raises(DataError, match='model was "served org/served" and is "served x"'):
            sampled(tmp_path, "sample.server.model=x", server=section, n=2)
        with pytest.raises(DataError, match=r"request\.top_k was"):
            sampled(tmp_path, "sample.server.kind=openai", server=section, n=2)
        stub.owner = "openai"
        with pytest.raises(DataError) as refused:
            sampled(tmp_path, server=section, n=3)
        assert "made by a server of the kind 'vllm', now it is 'openai'" in str(refused.value)


def test_keys_are_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_prompts(tmp_path, 3)
    with server(lambda request, before: 401) as stub:
        with pytest.raises(RecipeError) as refused:
            sampled(tmp_path, server=served(stub.url, key="MINE"))
        assert "sample.server.key: the environment variable MINE is not set" in str(refused.value)
        monkeypatch.setenv("MINE", "hunter2hunter2")
        with pytest.raises(RecipeError) as refused:
            sampled(tmp_path, server=served(stub.url, key="MINE"))
        text = "sample.server.key: the server rejects the API key in MINE (status 401)"
        assert text in str(refused.value)
        assert "hunter2" not in str(refused.value)
        with pytest.raises(RecipeError, match=r"sample\.server\.key: the server requires an API"):
            sampled(tmp_path, server=served(stub.url))
    with pytest.raises(RecipeError, match="urls: 'localhost:8000' is not the URL of a server"):
        sampled(tmp_path, server=served("localhost:8000"))


def test_servers_of_different_kinds_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    with server(like_vllm) as first, server(like_vllm) as second:
        section = served(of_vllm(first).url, second.url)
        with pytest.raises(RecipeError, match="the servers support different fields of requests"):
            sampled(tmp_path, server=section)
        assert not first.requests


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unidpo_mm.pipelines import served as module

    class Two:
        num_processes = 2

    write_prompts(tmp_path, 3)
    with server(like_vllm) as stub:
        section = served(of_vllm(stub).url)
        responses = sampled(tmp_path, server=section, n=2)
    monkeypatch.setattr(module, "processes", Two)
    assert sampled(tmp_path, server=section, n=2) == responses  # to be scored by several
    section = served("http://127.0.0.1:9/v1", kind="vllm")
    with pytest.raises(RecipeError, match=r"Sample without `accelerate launch` \(--until sample\)"):
        run_sampling(tmp_path, server=section, n=3)


def test_finished_responses_need_neither_server_nor_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path, 3)
    monkeypatch.setenv("MINE", "hunter2hunter2")
    with server(like_vllm) as stub:
        section = served(of_vllm(stub).url, key="MINE")
        responses = sampled(tmp_path, server=section, n=2)
        assert set(stub.keys) == {"Bearer hunter2hunter2"}
    monkeypatch.delenv("MINE")
    assert sampled(tmp_path, server=section, n=2) == responses
    assert "hunter2" not in (tmp_path / "made" / "responses.jsonl").read_text()


def test_passwords_in_urls_are_in_no_file(tmp_path: Path) -> None:
    write_prompts(tmp_path, 3)
    with server(like_vllm) as stub:
        url = of_vllm(stub).url.replace("http://", "http://me:hunter2@")
        sampled(tmp_path, server=served(url), n=2)
    assert manifest_of(tmp_path)["server"]["urls"][0].startswith("http://***@127.0.0.1")
    texts = [path.read_text() for path in (tmp_path / "made").rglob("*.jsonl")]
    assert len(texts) == 2
    assert not any("hunter2" in text for text in texts)


def test_variables_of_the_chat_template_are_sent_or_recorded_as_faults(tmp_path: Path) -> None:
    rows = [
        {"id": "plain", "prompt": "One?"},
        {"id": "kwargs", "prompt": "Two?", "chat_template_kwargs": {"enable_thinking": False}},
    ]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "prompts.jsonl").write_text(lines)
    with server(like_vllm) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=2)
        assert not [item for item in responses.values() if "fault" in item]
    by_text = {prompt_text(request): request for request in stub.requests}
    assert by_text["Two?"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in by_text["One?"]
    (tmp_path / "made" / "responses.jsonl").unlink()
    with server(strict(like_vllm)) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=2)
    assert responses["kwargs#0"]["fault"] == "prompt"
    assert "sets variables of the chat template" in responses["kwargs#0"]["message"]
    assert "fault" not in responses["plain#1"]


def test_tools_are_not_dropped_silently(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    row = {"id": "tools", "prompt": "Look?", "tools": [tool]}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(row) + '\n{"id": "a", "prompt": "Yes?"}\n')
    with server(like_vllm) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=2)
    assert "the prompt has tools" in responses["tools#1"]["message"]
    assert responses["a#1"]["response"]


def test_greedy_responses_come_from_one_request_each(tmp_path: Path) -> None:
    write_prompts(tmp_path, 10)
    with server(lambda request, before: completion(["the same"])) as stub:
        responses = sampled(tmp_path, server=served(of_vllm(stub).url), n=1, temperature=0)
    assert len(responses) == len(stub.requests) == 10
    assert sent(stub.requests[0]) == EXTENDED | {"temperature": 0, "top_p": 1}
    assert not any("new_tokens" in item for item in responses.values())


def test_shares_are_merged_without_the_server(tmp_path: Path) -> None:
    write_prompts(tmp_path, 9)
    with server(like_vllm) as stub:
        section = served(of_vllm(stub).url)
        making = load_make_recipe(write_recipe(tmp_path, server=section, n=2))
        for index in range(2):
            make(making, until="sample", share=Share(index, 2, merges=False))
        number = len(stub.requests)
    made = make(making, until="sample", share=Share(works=False))
    assert len(made.responses) == 18
    assert len(stub.requests) == number


def test_half_an_emoji_at_the_end_of_a_response(tmp_path: Path) -> None:
    write_prompts(tmp_path, 2)
    with server(lambda request, before: completion(["cat \ud83d"])) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=1)
    assert {item["response"] for item in responses.values()} == {"cat \ufffd"}

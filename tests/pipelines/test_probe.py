"""A few requests show before a run whether a server's responses would be useless."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.served_sampling import (
    completion,
    count,
    drawn,
    like_vllm,
    sampled,
    served,
    write_prompts,
)
from support.stub_server import prompt_text, server

from unidpo_mm.errors import RecipeError
from unidpo_mm.inference import endpoint as client_module


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(client_module, "MAX_WAIT", 0.001)


def refused(tmp_path: Path, speak: Callable[..., Any], **sample: Any) -> tuple[str, int]:
    """Return the message with which a run is refused, and the number of requests."""
    with server(speak) as stub, pytest.raises(RecipeError) as error:
        sampled(tmp_path, server=served(stub.url), **sample)
    assert not [*(tmp_path / "made").rglob("*.parts/*.jsonl")] or not stored(tmp_path)
    return str(error.value), len(stub.requests)


def stored(tmp_path: Path) -> list[str]:
    part = tmp_path / "made" / "responses.parts" / "0.jsonl"
    return [json.loads(line)["id"] for line in part.read_text().splitlines()[1:]]


def test_equal_choices_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 30)
    text, requests = refused(
        tmp_path,
        lambda request, before: completion([prompt_text(request)] * request.get("n", 1)),
        n=4,
    )
    assert "gives equal responses to a prompt at any temperature" in text
    assert "--generation-config vllm" in text
    assert "sample.top_k" in text
    assert requests == 8 + 8 + 16


def test_a_confident_model_is_not_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 20)

    def speak(request: Any, before: int) -> bytes:
        if request["temperature"] < 1:
            return completion(["A"] * request.get("n", 1))
        return like_vllm(request)

    with server(speak) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=4)
    assert {item["response"] for item in responses.values()} == {"A"}
    cold = [request for request in stub.requests if request["temperature"] < 1]
    assert sum(request["n"] for request in cold) == 80


def test_choices_with_the_same_seed_become_requests_of_their_own(tmp_path: Path) -> None:
    write_prompts(tmp_path, 20)

    def speak(request: Any, before: int) -> bytes:
        return completion([drawn(request, request["seed"])] * request.get("n", 1))

    with server(speak) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=3)
    assert len({item["response"] for item in responses.values()}) == 60
    with server(like_vllm) as stub:
        (tmp_path / "made" / "responses.jsonl").unlink()
        assert texts(sampled(tmp_path, server=served(stub.url), n=3)) == texts(responses)


def texts(responses: Mapping[str, Any]) -> dict[str, str]:
    return {name: item["response"] for name, item in responses.items()}


@pytest.mark.parametrize("several", ["ignored", "refused"])
def test_a_server_with_one_choice_gets_single_requests(tmp_path: Path, several: str) -> None:
    write_prompts(tmp_path, 20)

    def speak(request: Any, before: int) -> Any:
        if several == "refused" and request.get("n", 1) > 1:
            return 422
        return completion([drawn(request, request["seed"])])

    with server(speak) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=3)
    assert len({item["response"] for item in responses.values()}) == 60
    with_several = [request for request in stub.requests if "n" in request]
    assert len(with_several) == 8
    extra = 8 if several == "refused" else 0
    assert len(stub.requests) == 60 + extra  # the choices of the probe are kept


def test_equal_single_responses_are_refused(tmp_path: Path) -> None:
    write_prompts(tmp_path, 10)
    text, _ = refused(tmp_path, lambda request, before: prompt_text(request), n=4)
    assert "gives equal responses to a prompt at any temperature" in text


def blind(request: Mapping[str, Any], tokens: int | None) -> bytes:
    """Answer as if the request had no images."""
    turns = [{**turn, "content": prompt_text({"messages": [turn]})} for turn in request["messages"]]
    body = json.loads(like_vllm({**request, "messages": turns}))
    body["usage"]["prompt_tokens"] = tokens
    return json.dumps(body).encode()


@pytest.mark.parametrize("tokens", [5, None])
def test_a_server_that_ignores_images_is_refused(tmp_path: Path, tokens: int | None) -> None:
    write_prompts(tmp_path, 12, images=True)
    text, requests = refused(tmp_path, lambda request, before: blind(request, tokens), n=2)
    assert "gives the same responses to different images" in text
    assert "Serve a model that takes images" in text
    assert requests == 8 + 8 + 1


def test_images_that_count_as_tokens_are_not_ignored(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12, images=True)
    with server(lambda request, before: blind(request, count(request))) as stub:
        assert len(sampled(tmp_path, server=served(stub.url), n=2)) == 24


def test_one_request_shows_that_images_are_used(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12, images=True)
    with server(like_vllm) as stub:
        sampled(tmp_path, server=served(stub.url), n=2)
    assert len(stub.requests) == 12 + 1
    urls = [request["messages"][0]["content"][0]["image_url"]["url"] for request in stub.requests]
    assert len(set(urls)) == 13


def test_a_wrong_model_name_is_refused_with_the_names_of_the_server(tmp_path: Path) -> None:
    write_prompts(tmp_path, 12)

    def speak(request: Any, before: int) -> Any:
        return like_vllm(request) if request["model"] == "org/served" else 404

    with server(speak) as stub:
        stub.owner = "vllm"
        with pytest.raises(RecipeError) as error:
            sampled(tmp_path, server=served(stub.url, model="org/other"), n=2)
        assert "sample.server.model: " in str(error.value)
        assert "refuses every request (status 404" in str(error.value)
        assert "The server lists org/served: use the name of one of them" in str(error.value)
        assert not stored(tmp_path)
        stub.owner = None
        with pytest.raises(RecipeError, match="Check the model and the prompts"):
            sampled(tmp_path, server=served(stub.url, model="org/other", kind="vllm"), n=2)


def test_usable_replies_are_kept(tmp_path: Path) -> None:
    write_prompts(tmp_path, 5)
    with server(like_vllm) as stub:
        responses = sampled(tmp_path, server=served(stub.url), n=1)
        assert [request["n"] for request in stub.requests] == [2] * 5
        assert len(responses) == 5
        sampled(tmp_path, server=served(stub.url), n=3)
    assert [request["n"] for request in stub.requests[5:]] == [2] * 5

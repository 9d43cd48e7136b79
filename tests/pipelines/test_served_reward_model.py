"""Reward models behind a server: the request, its images, squashed scores, faults."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_image
from support.response_candidates import score
from support.stub_server import server
from support.text_classifiers import reward_model_in
from transformers import AutoTokenizer

from unidpo_mm.data.images import MemoryImage
from unidpo_mm.errors import UniDPOError
from unidpo_mm.pipelines.scorer import Candidate, Fault, ScoringContext
from unidpo_mm.pipelines.scorers.reward_model import RewardModel
from unidpo_mm.pipelines.scorers.served_reward_model import ServedRewardModel
from unidpo_mm.records import MediaSlot, Message, PreferenceRow, Response


def candidate(number: int, *, image: bool = False) -> Candidate:
    parts: tuple[Any, ...] = ((MediaSlot("image"),) if image else ()) + (f"What is {number}?",)
    row = PreferenceRow(
        id=f"p{number}",
        domain="text",
        source="test",
        where="row",
        messages=(Message("user", parts),),
        images=(MemoryImage(make_image(1), "row"),) if image else (),
        responses=(Response("-"),),
    )
    return Candidate(id=f"p{number}#0", prompt=row, text=f"It is {number}.")


def scores(folder: Path, speak: Callable[[Any, int], Any], items: list[Candidate]) -> Any:
    with server(speak) as stub:
        scorer = ServedRewardModel(url=stub.url.removesuffix("/v1"), model="org/reward")
        return scorer.start(ScoringContext(directory=folder))(items), stub


def reward(request: dict[str, Any]) -> float:
    """The reward of the stub's model: the number of characters of the response, from -20 on."""
    return len(request["messages"][-1]["content"]) - 20.0


def body(value: float) -> bytes:
    return json.dumps({"data": [{"index": 0, "object": "pooling", "data": [value]}]}).encode()


def test_scores_are_the_logits_and_requests_have_images(tmp_path: Path) -> None:
    items = [candidate(n, image=n == 0) for n in range(10)]
    values, stub = scores(tmp_path, lambda request, _: body(reward(request)), items)
    assert values == [-12.0] * 10  # "It is 3." has 8 characters
    assert set(stub.paths) == {"/pooling"}
    for request in stub.requests:
        assert request["task"] == "classify"
        assert request["use_activation"] is False
        assert request["model"] == "org/reward"
        assert [turn["role"] for turn in request["messages"]] == ["user", "assistant"]
    assert sum("image_url" in json.dumps(request) for request in stub.requests) == 1


def test_scores_are_those_of_the_same_model_in_this_process(tmp_path: Path) -> None:
    model = reward_model_in(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def reply(request: dict[str, Any], _: int) -> bytes:
        text = tokenizer.apply_chat_template(request["messages"], tokenize=False)
        with torch.inference_mode():
            logits = model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits
        return body(
            logits.item() if request["use_activation"] is False else logits.sigmoid().item()
        )

    items = [candidate(n) for n in range(10)]
    served, _ = scores(tmp_path, reply, items)
    local = score(RewardModel(model=str(tmp_path), dtype="float32"), items, tmp_path)
    assert served == pytest.approx(local, abs=1e-3)
    assert max(local) - min(local) > 0.1


def test_squashed_scores_end_the_run(tmp_path: Path) -> None:
    def squashed(request: dict[str, Any], _: int) -> bytes:
        return body(1 / (1 + math.exp(-reward(request))))

    with pytest.raises(UniDPOError, match="lie between 0 and 1"):
        scores(tmp_path, squashed, [candidate(n) for n in range(8)])
    values, _ = scores(tmp_path, squashed, [candidate(0)])  # too few to tell
    assert 0 < values[0] < 1


def test_replies_without_a_score_are_faults(tmp_path: Path) -> None:
    replies = [b"{}", json.dumps({"data": [{"data": [1.0, 2.0]}]}).encode(), 400]

    def speak(request: dict[str, Any], _: int) -> Any:
        return replies[int(request["messages"][0]["content"][8])]

    values, _ = scores(tmp_path, speak, [candidate(n) for n in range(3)])
    assert [fault.kind for fault in values] == ["malformed", "malformed", "refused"]
    assert all(isinstance(fault, Fault) and not fault.temporary for fault in values)


def test_the_address_of_chat_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="remove /v1"):
        ServedRewardModel(url="http://host:8000/v1", model="m")

"""Real servers give the samples that `data make` expects of them.

`make test-serving` runs these tests, see `test_serving.py`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support import real_servers
from support.real_servers import SIZES, VLLM_ENVIRONMENT, exported, trained, vllm_command
from support.served_sampling import sampled, served, write_prompts

from unidpo_mm.errors import RecipeError
from unidpo_mm.inference.endpoint import ChatClient

pytestmark = [pytest.mark.serving, pytest.mark.timeout(1800)]

PROMPTS, N = 10, 4
GREEDY = {"do_sample": True, "temperature": 0.1, "top_k": 1, "repetition_penalty": 1.05}
"""Settings of a model, similar to those of Qwen2.5-VL, with which all samples are equal."""


def test_vllm_gives_samples_whatever_the_settings_of_the_model(vllm: Path, tmp_path: Path) -> None:
    _, adapter = trained(tmp_path, "qwen3", **SIZES)
    merged = exported(adapter, tmp_path / "merged", "--merge")
    change_settings(merged, GREEDY)
    write_prompts(tmp_path, PROMPTS)
    command = vllm_command(vllm, merged, "tuned")
    with real_servers.served(command, VLLM_ENVIRONMENT, tmp_path / "log") as url:
        client = ChatClient(url, "tuned")
        assert client.kind() == "vllm"
        question = [{"role": "user", "content": "Count to 3, please."}]
        omitted = client.choices(question, temperature=0.8, n=N, seed=1, max_tokens=9)
        assert len({choice.text for choice in omitted.choices}) == 1  # the trap
        section = served(url, model="tuned", timeout=300)
        responses = sampled(tmp_path, server=section, n=N, temperature=1.0, top_p=1.0)
        fields = {**manifest_of(tmp_path)["request"]}
        equal = 0
        for number in range(PROMPTS):
            question = [{"role": "user", "content": f"Count to {number}, please."}]
            for k in range(N):
                record = responses[f"p{number}#{k}"]
                reply = client.chat(question, **fields, seed=record["seed"])
                equal += reply.text == record["response"]
    assert fields["top_k"] == -1
    assert len({item["response"] for item in responses.values()}) > 0.9 * PROMPTS * N
    assert equal >= 0.9 * PROMPTS * N  # choice k has the seed of the request plus k


def test_transformers_gives_single_samples_of_an_image_model(tmp_path: Path) -> None:
    _, adapter = trained(tmp_path, "llava")
    merged = exported(adapter, tmp_path / "merged", "--merge")
    write_prompts(tmp_path, PROMPTS, images=True)
    options = {"n": N, "temperature": 1.0, "top_p": 1.0}
    with real_servers.transformers_serve(tmp_path) as url:
        section = served(url, model=str(merged), timeout=300)
        with pytest.raises(RecipeError, match=r"equal responses .* set do_sample to true"):
            sampled(tmp_path, server=section, **options)  # its own settings are greedy
    change_settings(merged, {"do_sample": True})
    with real_servers.transformers_serve(tmp_path) as url:
        section = served(url, model=str(merged), timeout=300)
        responses = sampled(tmp_path, server=section, **options)
    assert list(responses) == [f"p{number}#{k}" for number in range(PROMPTS) for k in range(N)]
    assert not [item for item in responses.values() if "fault" in item]
    assert len({item["response"] for item in responses.values()}) > 0.9 * PROMPTS * N
    assert manifest_of(tmp_path)["server"]["kind"] == "unknown"


def change_settings(model: Path, settings: Mapping[str, Any]) -> None:
    """Change the settings of generation that come with a model."""
    path = model / "generation_config.json"
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **settings}))


def manifest_of(folder: Path) -> dict[str, Any]:
    path = folder / "made" / "responses.jsonl"
    with path.open(encoding="utf-8") as stream:
        return json.loads(stream.readline())["manifest"]
